"""The gRPC wire of a live conversation: what is sent as protobuf, what comes back as events. Sync, no sockets, no clock.

The only place of the SDK, beside call_errors.py, that knows protobuf; imported when a conversation is opened, not before.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

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
from omni_client.content import wire_messages
from omni_client.errors import MediaError, ResponseFormatError
from omni_client.events import (
    AudioDelta,
    Heard,
    ImagePreview,
    ImageReady,
    Modality,
    ReasoningDelta,
    SpanClosed,
    SpanError,
    SpanOpened,
    ToolCalled,
    Usage,
)
from omni_client.media import Picture

if TYPE_CHECKING:
    from omni_client.call_setup import CallWishes

MODALITIES = {
    "text": content_pb2.MODALITY_TEXT,
    "image": content_pb2.MODALITY_IMAGE,
    "audio": content_pb2.MODALITY_AUDIO,
}
NAMES = {number: cast(Modality, name) for name, number in MODALITIES.items()}
ROLES = {"system": content_pb2.ROLE_SYSTEM, "user": content_pb2.ROLE_USER, "assistant": content_pb2.ROLE_ASSISTANT}
SAMPLING = ("temperature", "top_p", "top_k", "seed", "max_tokens", "presence_penalty", "frequency_penalty")
DETECTION = ("threshold", "prefix_padding_ms", "silence_duration_ms", "interrupt_response")
MOMENTS = ("prompt", "first_token", "first_audio", "first_image", "total")


def config_request(wishes: CallWishes, model: str | None) -> converse_pb2.ConverseRequest:
    """The first message of a conversation. What is not wished is left to the server."""
    sampling = content_pb2.Sampling(**{name: wishes.get(name) for name in SAMPLING}, stop=_listed(wishes.get("stop")))  # type: ignore[arg-type]
    by_client = wishes.get("turns", "server") == "client"
    detection = converse_pb2.TurnDetection(
        type=converse_pb2.TURN_DETECTION_TYPE_NONE if by_client else converse_pb2.TURN_DETECTION_TYPE_SERVER_VAD,
        **{name: wishes.get(name) for name in DETECTION},  # type: ignore[arg-type]
    )
    history = wishes.get("history")
    config = converse_pb2.ConverseConfig(
        model=model or "",
        instructions=wishes.get("system", ""),
        history=[_message(message) for message in wire_messages(history)] if history is not None else [],
        modalities=[_modality(name) for name in wishes.get("modalities", ())],
        voice=wishes.get("voice", ""),
        input_audio=content_pb2.AudioFormat(sample_rate_hertz=wishes.get("sample_rate", 0)),
        output_audio=content_pb2.AudioFormat(sample_rate_hertz=wishes.get("output_sample_rate", 0)),
        sampling=sampling,
        turn_detection=detection,
        input_transcription=wishes.get("captions", False),
    )
    return converse_pb2.ConverseRequest(config=config)


def _listed(stop: str | Sequence[str] | None) -> list[str]:
    return [stop] if isinstance(stop, str) else [*(stop or ())]


def _modality(name: str) -> content_pb2.Modality:
    if name not in MODALITIES:
        raise MediaError(f"a modality is `{name}`; expected some of {', '.join(f'`{known}`' for known in MODALITIES)}")
    return MODALITIES[name]


def _message(message: dict[str, Any]) -> content_pb2.Message:
    content = message.get("content") or []
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
    parts = [*parts, *message.get("images", ())]
    return content_pb2.Message(role=ROLES[message["role"]], parts=[_part(part) for part in parts])


def _part(part: dict[str, Any]) -> content_pb2.Part:
    match part["type"]:
        case "text":
            return content_pb2.Part(text=part["text"])
        case "image_url":
            return content_pb2.Part(image=content_pb2.Media(url=part["image_url"]["url"]))
        case "input_audio":
            return content_pb2.Part(audio=content_pb2.Media(data=base64.b64decode(part["input_audio"]["data"])))
        case other:
            raise MediaError(f"a part of the history is `{other}`; expected words, a picture or a recording")


def audio_request(pcm: bytes, sequence: int) -> converse_pb2.ConverseRequest:
    return converse_pb2.ConverseRequest(audio=converse_pb2.AudioFrame(audio=pcm, sequence=sequence))


def text_request(text: str) -> converse_pb2.ConverseRequest:
    return converse_pb2.ConverseRequest(text=text)


def picture_request(picture: Picture) -> converse_pb2.ConverseRequest:
    return converse_pb2.ConverseRequest(image=content_pb2.Media(data=picture.data))


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
            call = message.tool_called.call  # this wire tells a tool's answer by the tool's name
            return ToolCalled(message.tool_called.index, call.name, call.name, call.arguments)
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
