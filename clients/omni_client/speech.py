"""The gRPC wire of a live conversation: what is sent as protobuf, what comes back as events. Sync, no sockets, no clock.

The only place of the SDK, beside speech_config.py and call_errors.py, that knows protobuf; imported when a conversation is
opened, not before.
"""

from __future__ import annotations

from typing import cast

from google.protobuf.duration_pb2 import Duration

from omni.v1 import content_pb2, converse_pb2, events_pb2
from omni_client.call_events import (
    CallEvent,
    Caption,
    GoAway,
    Interrupted,
    Ready,
    Refused,
    ResponseDone,
    ResponseStarted,
    SpeechStarted,
    SpeechStopped,
    Status,
    Truncated,
    TurnCommitted,
    TurnComplete,
)
from omni_client.errors import ResponseFormatError
from omni_client.events import (
    AudioDelta,
    Heard,
    ImagePreview,
    ImageReady,
    ReasoningDelta,
    SpanClosed,
    SpanError,
    SpanOpened,
    ToolCalled,
    Usage,
)
from omni_client.media import Picture
from omni_client.speech_config import NAMES, config_request as config_request

MOMENTS = ("prompt", "first_token", "first_audio", "first_image", "total")


def audio_request(pcm: bytes, sequence: int) -> converse_pb2.ConverseRequest:
    return converse_pb2.ConverseRequest(audio=converse_pb2.AudioFrame(audio=pcm, sequence=sequence))


def text_request(text: str) -> converse_pb2.ConverseRequest:
    return converse_pb2.ConverseRequest(text=text)


def picture_request(picture: Picture) -> converse_pb2.ConverseRequest:
    return converse_pb2.ConverseRequest(image=content_pb2.Media(data=picture.data))


def tool_result_request(call_id: str, output: str) -> converse_pb2.ConverseRequest:
    return converse_pb2.ConverseRequest(tool_result=converse_pb2.ToolResult(call_id=call_id, output=output))


def end_turn_request() -> converse_pb2.ConverseRequest:
    return converse_pb2.ConverseRequest(end_turn=converse_pb2.EndTurn())


def cancel_request(response_id: str) -> converse_pb2.ConverseRequest:
    return converse_pb2.ConverseRequest(cancel=converse_pb2.Cancel(response_id=response_id))


def truncate_request(response_id: str, heard: float) -> converse_pb2.ConverseRequest:
    return converse_pb2.ConverseRequest(truncate=converse_pb2.Truncate(response_id=response_id, heard=_duration(heard)))


def playback_request(response_id: str, heard: float) -> converse_pb2.ConverseRequest:
    return converse_pb2.ConverseRequest(playback=converse_pb2.Playback(response_id=response_id, heard=_duration(heard)))


def _duration(seconds: float) -> Duration:
    duration = Duration()
    duration.FromNanoseconds(round(seconds * 1e9))
    return duration


def _seconds(duration: Duration) -> float:
    return duration.seconds + duration.nanos / 1e9


class CallEvents:
    """`feed(message)` gives the events of one message of the server; the first message only sets `ready`. Kinds that this
    SDK does not know are passed over, so a newer server can say more."""

    def __init__(self) -> None:
        self.ready: Ready | None = None

    def feed(self, message: converse_pb2.ConverseResponse) -> list[CallEvent]:
        kind = message.WhichOneof("message")
        if kind == "ready":
            self.ready = _ready(message.ready)
            return []
        if self.ready is None:
            raise ResponseFormatError(f"the server began with `{kind}`; expected `ready`")
        event = _event(kind, message, self.ready.output_sample_rate)
        return [event] if event is not None else []


def _ready(ready: converse_pb2.Ready) -> Ready:
    config = ready.config
    return Ready(
        session_id=ready.session_id,
        model=config.model,
        voice=config.voice,
        modalities=tuple(NAMES[number] for number in config.modalities if number in NAMES),
        input_sample_rate=config.input_audio.sample_rate_hertz,
        output_sample_rate=config.output_audio.sample_rate_hertz,
    )


def _event(kind: str | None, message: converse_pb2.ConverseResponse, sample_rate: int) -> CallEvent | None:
    match kind:
        case "speech_started":
            return SpeechStarted(message.speech_started.turn_id, _seconds(message.speech_started.start))
        case "speech_stopped":
            return SpeechStopped(message.speech_stopped.turn_id, _seconds(message.speech_stopped.end))
        case "turn_committed":
            return TurnCommitted(message.turn_committed.turn_id, _seconds(message.turn_committed.audio))
        case "transcript":
            told = message.transcript
            role = content_pb2.Role.Name(told.role).removeprefix("ROLE_").lower()
            return Caption(told.id, "user" if role == "user" else "assistant", told.text, told.is_final)
        case "response_started":
            return ResponseStarted(message.response_started.response_id, message.response_started.turn_id)
        case "response_done":
            return _response_done(message.response_done)
        case "interrupted":
            told = message.interrupted
            return Interrupted(told.response_id, _seconds(told.heard), told.text)
        case "turn_complete":
            return TurnComplete(message.turn_complete.response_id)
        case "truncated":
            cut = message.truncated
            return Truncated(cut.response_id, _seconds(cut.heard), cut.text)
        case "problem":
            problem = message.problem
            return Refused(problem.message, problem.reason.lower(), problem.field or None)
        case "go_away":
            return GoAway(_seconds(message.go_away.time_left))
        case _:
            return _span_event(kind, message, sample_rate)


def _span_event(kind: str | None, message: converse_pb2.ConverseResponse, sample_rate: int) -> CallEvent | None:
    match kind:
        case "span_opened":
            modality = NAMES.get(message.span_opened.modality)
            return SpanOpened(message.span_opened.index, modality) if modality is not None else None
        case "audio_delta":
            return AudioDelta(message.audio_delta.audio, sample_rate, _seconds(message.audio_delta.start))
        case "image_preview":
            preview = message.image_preview
            return ImagePreview(preview.index, Picture(preview.image), preview.progress)
        case "image_ready":
            return ImageReady(message.image_ready.index, Picture(message.image_ready.image))
        case "reasoning_delta":
            return ReasoningDelta(message.reasoning_delta.text)
        case "heard":
            return Heard(message.heard.text)
        case "tool_called":
            told = message.tool_called
            return ToolCalled(told.index, told.call_id, told.call.name, told.call.arguments)
        case "span_closed":
            closed = message.span_closed
            return SpanClosed(closed.index, _span_error(closed.problem) if closed.HasField("problem") else None)
        case _:
            return None


def _response_done(done: converse_pb2.ResponseDone) -> ResponseDone:
    status = converse_pb2.ResponseStatus.Name(done.status).removeprefix("RESPONSE_STATUS_").lower()
    return ResponseDone(
        response_id=done.response_id,
        status=cast(Status, status),
        usage=Usage(**{name: getattr(done.usage, name) for name in Usage.__slots__}) if done.HasField("usage") else None,
        timing={name: _seconds(getattr(done.timing, name)) for name in MOMENTS if done.timing.HasField(name)},
        turn_to_first_audio=_seconds(done.turn_to_first_audio) if done.HasField("turn_to_first_audio") else None,
        audio=_seconds(done.audio),
        error=_span_error(done.problem) if done.HasField("problem") else None,
    )


def _span_error(problem: events_pb2.Problem) -> SpanError:
    return SpanError(problem.message, code=problem.reason.lower() or None)
