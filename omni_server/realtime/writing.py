"""Step 8. What happens in a session, as the realtime wire's server events. Sync, no sockets, no clock."""

from __future__ import annotations

from collections.abc import Iterable

from omni_server.errors import ServerStopping
from omni_server.realtime.held import Body
from omni_server.realtime.items import heard_body
from omni_server.realtime.ledger import Asked, Ledger, Told, error_fields, milliseconds, told
from omni_server.realtime.response import ResponseWriter
from omni_server.turns import (
    AnswerBegun,
    CallMade,
    GoAway,
    Interrupted,
    ItemDropped,
    ItemPlaced,
    ResponseDone,
    ResponsePart,
    ResponseStarted,
    SessionEvent,
    SpeechStarted,
    SpeechStopped,
    Transcript,
    Trouble,
    Truncated,
    TurnCommitted,
    TurnComplete,
)


def stopping(seconds: float) -> ServerStopping:
    """What a live client is told while it can still hear its answer."""
    told = f"the server is stopping: this answer is the last, and the call ends behind it, in `{seconds:g}` seconds at most"
    return ServerStopping(told, retry_after=seconds)


class EventWriter:
    """`feed(event)` gives the events of the wire."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._response: ResponseWriter | None = None
        self._seconds: dict[str, float] = {}  # of turns that are being written down

    def feed(self, event: SessionEvent) -> list[Body]:
        return [told(type, **fields) for type, fields in self._written(event)]

    def _written(self, event: SessionEvent) -> Iterable[Told]:
        match event:
            case ResponseStarted(response_id=id):
                asked = self._ledger.asked.pop(id, None) or Asked(self._ledger.held)
                self._response = ResponseWriter(self._ledger, id, asked)
                return self._response.created()
            case AnswerBegun() | ResponsePart() | CallMade() | ResponseDone():
                assert self._response is not None
                return self._response.feed(event)
            case Transcript(role="assistant", text=text, final=False):
                assert self._response is not None
                return self._response.words(text)
            case Interrupted(response_id=id, heard=heard):
                cut = self._cut(id, heard)
                if self._response is None or self._response.id != id or self._response.over:
                    return cut
                self._response.cut(cut)
                return []
            case Truncated(response_id=id, heard=heard):
                return self._cut(id, heard)
            case GoAway(seconds=seconds):
                return [("error", error_fields(stopping(seconds)))]
            case Transcript(role="assistant") | TurnComplete():
                return []
            case _:
                return self._person(event)

    def _person(self, event: SessionEvent) -> Iterable[Told]:
        match event:
            case SpeechStarted(turn_id=id, start=start):
                yield "input_audio_buffer.speech_started", {"audio_start_ms": milliseconds(start), "item_id": id}
            case SpeechStopped(turn_id=id, end=end):
                yield "input_audio_buffer.speech_stopped", {"audio_end_ms": milliseconds(end), "item_id": id}
            case TurnCommitted(turn_id=id, seconds=seconds, previous=previous):
                self._ledger.items[id] = heard_body(id)
                self._seconds[id] = seconds
                yield "input_audio_buffer.committed", {"item_id": id, "previous_item_id": previous}
                yield from self._placed(id, previous)
            case ItemPlaced(item_id=id, previous=previous):
                yield from self._placed(id, previous)
            case ItemDropped(item_id=id):
                self._ledger.items.pop(id, None)
                yield "conversation.item.deleted", {"item_id": id}
            case Transcript(id=id, text=text):
                yield from self._written_down(id, text)
            case Trouble(error=error, turn_id=""):
                yield "error", error_fields(error)
            case Trouble(error=error, turn_id=id):
                self._seconds.pop(id, None)
                fault = {"item_id": id, "content_index": 0, **error_fields(error)}
                yield "conversation.item.input_audio_transcription.failed", fault
            case _:
                raise TypeError(f"`{type(event).__name__}` has no event of its own")

    def _placed(self, id: str, previous: str | None) -> Iterable[Told]:
        fields = {"previous_item_id": previous, "item": self._ledger.items[id]}
        yield "conversation.item.added", fields
        yield "conversation.item.done", fields

    def _written_down(self, id: str, text: str) -> Iterable[Told]:
        if id in self._ledger.items:
            self._ledger.items[id] = heard_body(id, text)
        place = {"item_id": id, "content_index": 0}
        usage = {"type": "duration", "seconds": round(self._seconds.pop(id, 0.0), 3)}
        if text:
            yield "conversation.item.input_audio_transcription.delta", {**place, "delta": text}
        yield "conversation.item.input_audio_transcription.completed", {**place, "transcript": text, "usage": usage}

    def _cut(self, response_id: str, heard: float) -> list[Told]:
        items = [item for item, response in self._ledger.responses.items() if response == response_id]
        place = {"content_index": 0, "audio_end_ms": milliseconds(heard)}
        return [("conversation.item.truncated", {"item_id": item, **place}) for item in items]
