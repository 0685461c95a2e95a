"""Step 8. What happens in a session, as the Live wire's server events, each with its place on the session's timeline.

Sync, no sockets; the clock is handed in.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from omni_server.errors import OmniError
from omni_server.live_audio import FrameWriter
from omni_server.realtime.held import Body, Sound
from omni_server.realtime.items import new_id
from omni_server.realtime.ledger import milliseconds
from omni_server.realtime.writing import stopping
from omni_server.turns import (
    GoAway,
    Interrupted,
    ResponseDone,
    ResponsePart,
    ResponseStarted,
    SessionEvent,
    SpeechStarted,
    SpeechStopped,
    Transcript,
    Trouble,
    TurnCommitted,
)
from omni_server.types import AudioDelta, SpanClosed

PIECE_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Due:
    """An event that is not to be sent before `at`, in seconds of the session; one of an answer says which."""

    body: Body
    at: float = 0.0
    response_id: str = ""


class LiveWriter:
    """`feed(event)` gives the events of the wire."""

    def __init__(self, sound: Sound, clock: Callable[[], float], context_length: int) -> None:
        """`clock`: seconds since the session began."""
        self.seconds = 0.0  # of sound, both ways
        self._wanted = sound
        self._clock = clock
        self._context_length = context_length
        self._sound: FrameWriter | None = None
        self._until = 0.0  # when all sound so far will have been played
        self._said = ""  # of the answer under way
        self._heard: dict[str, tuple[float, float]] = {}  # when each turn was spoken

    def feed(self, event: SessionEvent) -> Iterator[Due]:
        match event:
            case ResponseStarted():
                self._sound, self._said = None, ""
            case ResponsePart(response_id=id, event=AudioDelta() as delta):
                yield from self._pieces(id, delta)
            case ResponsePart(event=SpanClosed(error=OmniError() as error)) | Trouble(error=error):
                yield Due(error_body(error))
            case Transcript(role="assistant", text=text, final=False):
                words, self._said = text[len(self._said) :], text
                at = max(self._until, self._clock())
                yield Due(timed("session.output_transcript.delta", at, at, delta=words))
            case Transcript(id=id, role="user", text=text):
                start, end = self._heard.pop(id, (0.0, 0.0))
                yield Due(timed("session.input_transcript.delta", start, end, delta=text))
            case SpeechStarted(turn_id=id, start=start):
                self._heard[id] = (start, start)
            case SpeechStopped(turn_id=id, end=end):
                self._heard[id] = (self._heard[id][0], end)
            case Interrupted():
                self._until = self._clock()  # what was not sent will not be
            case TurnCommitted(seconds=seconds):
                self.seconds += seconds
            case ResponseDone():
                yield from self._done(event)
            case GoAway(seconds=seconds):
                yield Due(error_body(stopping(seconds)))
            case _:
                pass

    def _pieces(self, response_id: str, delta: AudioDelta) -> Iterator[Due]:
        if self._sound is None:
            self._sound = FrameWriter(self._wanted.encoding, delta.sample_rate, self._wanted.sample_rate)
        start = max(self._until, self._clock())
        self._until = start + len(delta.samples) / delta.sample_rate
        for piece in np.split(delta.samples, range(size := round(PIECE_SECONDS * delta.sample_rate), len(delta.samples), size)):
            end = start + len(piece) / delta.sample_rate
            if data := b"".join(self._sound.feed(piece)):
                sound = base64.b64encode(data).decode()
                yield Due(timed("session.output_audio.delta", start, end, delta=sound), start, response_id)
            start = end

    def _done(self, event: ResponseDone) -> Iterator[Due]:
        self.seconds += event.seconds
        if event.error is not None:
            yield Due(error_body(event.error))
        body = live_event("session.usage.updated", usage={"seconds": round(self.seconds, 3)})
        if event.done is not None:
            used = event.done.usage.prompt_tokens + event.done.usage.completion_tokens
            body["context_window"] = {"usage_ratio": round(used / self._context_length, 4)}
        yield Due(body)


def live_event(type: str, client_event_id: str | None = None, **fields: object) -> Body:
    """`client_event_id`: of the client's event that it answers."""
    return {"type": type, "event_id": new_id("event"), "client_event_id": client_event_id, **fields}


def timed(type: str, start: float, end: float, client_event_id: str | None = None, **fields: object) -> Body:
    return live_event(type, client_event_id, start_ms=milliseconds(start), end_ms=milliseconds(end), **fields)


def error_body(error: OmniError, client_event_id: str | None = None) -> Body:
    fault = {"type": error.type, "code": error.code, "message": error.message, "param": error.param}
    return live_event("error", client_event_id, error={**fault, "client_event_id": client_event_id})
