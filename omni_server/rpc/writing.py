"""Step 8. What happens in a reply, as messages of the wire. Sync, no sockets, no clock."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import PIL.Image
from google.protobuf import duration_pb2

from omni.v1 import content_pb2, events_pb2
from omni_server.errors import OmniError
from omni_server.live_audio import FrameWriter
from omni_server.rpc.calls import reason_of
from omni_server.rpc.reading import SoundFormat
from omni_server.segments import SpansInLine
from omni_server.types import (
    AudioDelta,
    Done,
    Event,
    Failed,
    Heard,
    ImagePreview,
    ImageProgress,
    ImageReady,
    Modality,
    ReasoningDelta,
    SpanClosed,
    SpanOpened,
    TextDelta,
    ToolCalled,
    Usage,
)

MODALITIES = {
    Modality.TEXT: content_pb2.MODALITY_TEXT,
    Modality.IMAGE: content_pb2.MODALITY_IMAGE,
    Modality.AUDIO: content_pb2.MODALITY_AUDIO,
}
FINISH_REASONS = {
    "stop": events_pb2.FINISH_REASON_STOP,
    "length": events_pb2.FINISH_REASON_LENGTH,
    "tool_calls": events_pb2.FINISH_REASON_TOOL_CALLS,
}
MOMENTS = ("prompt", "first_token", "first_audio", "first_image", "total")

Fields = dict[str, Any]  # one entry: the name of a oneof's field, and its message


def heavy(event: object, format: SoundFormat) -> bool:
    """Whether writing it takes milliseconds, too long for the event loop: a PNG does, and sound that is compressed."""
    return isinstance(event, ImageReady | ImagePreview) or (format.encoding != "pcm16" and isinstance(event, AudioDelta | Done))


def duration(seconds: float) -> duration_pb2.Duration:
    nanoseconds = round(seconds * 1e9)
    return duration_pb2.Duration(seconds=nanoseconds // 10**9, nanos=nanoseconds % 10**9)


class EventWriter:
    """`feed(event)` gives the events of the wire. The sound of all spans is one stream in the format that was asked for."""

    def __init__(self, format: SoundFormat) -> None:
        self.format = format
        self._line = SpansInLine()
        self._sound = SoundWriter(format)
        self._progress: dict[int, float] = {}  # by span of a picture, 0..1

    def feed(self, event: Event) -> list[Fields]:
        """Raises the error of a reply that failed."""
        return [fields for released in self._line.feed(event) for fields in self._written(released)]

    def finish(self) -> list[Fields]:
        """The rest of the sound; of a reply that ends with `Done` it stands before that."""
        return self._sound.finish()

    def _written(self, event: Event) -> list[Fields]:
        match event:
            case AudioDelta():
                return self._sound.feed(event)
            case Done():
                return [*self.finish(), {"done": done_message(event)}]
            case Failed(error=error):
                raise error
            case ImageProgress(index=index, step=step, steps=steps):
                self._progress[index] = step / steps
                return []
            case ImagePreview(index=index, image=image):
                progress = self._progress.get(index, 0.0)
                return [{"image_preview": events_pb2.ImagePreview(index=index, image=png_of(image), progress=progress)}]
            case _:
                return [plain_event(event)]


class SoundWriter:
    """The sound of one reply, with the time of each piece."""

    def __init__(self, format: SoundFormat) -> None:
        self._format = format
        self._writer: FrameWriter | None = None
        self._index = 0
        self.seconds = 0.0  # of sound that went in
        self._sent = 0.0

    def feed(self, delta: AudioDelta) -> list[Fields]:
        if self._writer is None:
            self._writer = FrameWriter(self._format.encoding, delta.sample_rate, self._format.sample_rate)
        self._index = delta.index
        self.seconds += len(delta.samples) / delta.sample_rate
        return self._deltas(self._writer.feed(delta.samples))

    def finish(self) -> list[Fields]:
        return self._deltas(self._writer.finish()) if self._writer is not None else []

    def _deltas(self, frames: list[bytes]) -> list[Fields]:
        """Pieces that were made together share the time between them evenly."""
        start, step = self._sent, (self.seconds - self._sent) / max(1, len(frames))
        if frames:
            self._sent = self.seconds
        return [
            {
                "audio_delta": events_pb2.AudioDelta(
                    index=self._index,
                    audio=frame,
                    start=duration(start + place * step),
                    end=duration(start + (place + 1) * step),
                )
            }
            for place, frame in enumerate(frames)
        ]


def plain_event(event: Event) -> Fields:
    """An event that means the same in every reply."""
    match event:
        case SpanOpened(index=index, modality=modality):
            return {"span_opened": events_pb2.SpanOpened(index=index, modality=MODALITIES[modality])}
        case TextDelta(index=index, text=text):
            return {"text_delta": events_pb2.TextDelta(index=index, text=text)}
        case ReasoningDelta(text=text):
            return {"reasoning_delta": events_pb2.ReasoningDelta(text=text)}
        case Heard(text=text):
            return {"heard": events_pb2.Heard(text=text)}
        case ToolCalled(index=index, name=name, arguments=arguments):
            return {"tool_called": call_message(index, name, arguments)}
        case ImageReady(index=index, image=image):
            size = {"width": image.width, "height": image.height}
            return {"image_ready": events_pb2.ImageReady(index=index, image=png_of(image), **size)}
        case SpanClosed(index=index, error=error):
            return {"span_closed": events_pb2.SpanClosed(index=index, problem=problem_of(error) if error else None)}
        case _:
            raise TypeError(f"`{type(event).__name__}` has no message of its own")


def call_message(index: int, name: str, arguments: str, call_id: str = "") -> events_pb2.ToolCalled:
    call = content_pb2.ToolCall(name=name, arguments=arguments)
    return events_pb2.ToolCalled(index=index, call=call, call_id=call_id)


def png_of(image: PIL.Image.Image) -> bytes:
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def problem_of(error: OmniError) -> events_pb2.Problem:
    return events_pb2.Problem(reason=reason_of(error), message=error.message, field=error.param or "")


def done_message(done: Done) -> events_pb2.Done:
    return events_pb2.Done(
        finish_reason=FINISH_REASONS[done.finish_reason], usage=usage_message(done.usage), timing=timing_message(done.seconds)
    )


def usage_message(usage: Usage) -> events_pb2.Usage:
    return events_pb2.Usage(
        prompt_tokens=usage.prompt_tokens,
        prompt_image_tokens=usage.prompt_image_tokens,
        prompt_audio_tokens=usage.prompt_audio_tokens,
        cached_tokens=usage.cached_tokens,
        completion_tokens=usage.completion_tokens,
        completion_image_tokens=usage.completion_image_tokens,
        completion_audio_tokens=usage.completion_audio_tokens,
    )


def timing_message(seconds: Mapping[str, float]) -> events_pb2.Timing:
    return events_pb2.Timing(**{name: duration(seconds[name]) for name in MOMENTS if name in seconds})
