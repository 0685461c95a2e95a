"""Step 8. Events become OpenAI's chat answer: one message, or a stream of chunks. Sync, no sockets, no clock.

Spans of a reply may overlap in time: a slow picture does not hold back the voice after it. What OpenAI's shape wants in
order is put in order here: the voice of all spans is one continuous file, `omni.segments` tells the order of all.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import PIL.Image

from omni_server.audio_format import AudioWriter, encode, open_writer
from omni_server.errors import OmniError
from omni_server.segments import Body, Segments, VoiceLine
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


@dataclass(frozen=True, slots=True)
class Envelope:
    """What all pieces of one answer share. `audio_format` is set where a voice was asked for; `keep_transcript` returns
    the time at which the transcript is forgotten."""

    id: str
    model: str
    created: int
    keep_transcript: Callable[[str, str], int]
    audio_format: str | None = None
    include_usage: bool = False

    @property
    def audio_id(self) -> str:
        return "audio_" + self.id.removeprefix("chatcmpl-")

    def wrap(self, object_name: str, **rest: Any) -> Body:
        return {"id": self.id, "object": object_name, "created": self.created, "model": self.model, **rest}


class ChatMessageReply:
    """Collects events; `finish()` is the body of a plain answer."""

    def __init__(self, envelope: Envelope) -> None:
        self._envelope = envelope
        self._segments = Segments()
        self._voice = VoiceLine()
        self._heard: list[np.ndarray] = []
        self._sample_rate = 0
        self._thoughts = ""
        self._user_said = ""
        self._calls: list[Body] = []
        self._done: Done | None = None

    def feed(self, event: Event) -> None:
        """Raises the error of a reply that failed."""
        self._segments.feed(event)
        match event:
            case SpanOpened(index=index, modality=Modality.AUDIO):
                self._voice.open(index)
            case AudioDelta(index=index, samples=samples, sample_rate=sample_rate):
                self._sample_rate = sample_rate
                self._heard.append(self._voice.feed(index, samples))
            case SpanClosed(index=index):
                self._heard.append(self._voice.close(index))
            case ReasoningDelta(text=text):
                self._thoughts += text
            case Heard(text=text):
                self._user_said += text
            case ToolCalled():
                self._calls.append(call_part(self._envelope, event))
            case Done():
                self._done = event
            case Failed(error=error):
                raise error
            case _:
                pass

    def finish(self) -> Body:
        if self._done is None:
            raise OmniError("The reply ended without an ending.")
        segments = self._segments.in_order()
        text = self._segments.text
        message: Body = {"role": "assistant", "content": text, "refusal": None}
        if self._thoughts:
            message["reasoning_content"] = self._thoughts
        if self._calls:
            message["content"] = text or None
            message["tool_calls"] = self._calls
        if self._envelope.audio_format is not None and self._sample_rate:
            message["content"] = None
            message["audio"] = self._audio(text)
        images = [segment.image for segment in segments if segment.image is not None]
        if images:
            message["images"] = [image_part(image, place) for place, image in enumerate(images)]
        message["omni"] = {"segments": [segment.closed() for segment in segments], "seconds": self._done.seconds}
        if self._user_said:
            message["omni"]["user_transcript"] = self._user_said
        choice = {"index": 0, "message": message, "finish_reason": self._done.finish_reason, "logprobs": None}
        return self._envelope.wrap("chat.completion", choices=[choice], usage=usage_body(self._done.usage))

    def _audio(self, transcript: str) -> Body:
        assert self._envelope.audio_format is not None
        file = encode(self._envelope.audio_format, np.concatenate(self._heard), self._sample_rate)
        return {
            "id": self._envelope.audio_id,
            "data": base64.b64encode(file).decode("ascii"),
            "expires_at": self._envelope.keep_transcript(self._envelope.audio_id, transcript),
            "transcript": transcript,
        }


class ChatChunks:
    """`feed(event)` and `finish()` give the chunks of a streamed answer, in order.

    Stock accumulators join strings and add numbers, so an id or a number is sent exactly once, lists have an `index`
    that counts up, and base64 is cut at whole groups: the joined `data` is the base64 of the whole file.
    """

    def __init__(self, envelope: Envelope) -> None:
        self._envelope = envelope
        self._segments = Segments()
        self._voice = VoiceLine()
        self._writer: AudioWriter | None = None
        self._slices = Base64Slices()
        self._audio_id_sent = False
        self._begun = False
        self._images = 0

    def feed(self, event: Event) -> list[Body]:
        self._segments.feed(event)
        chunks = [] if self._begun else [self._chunk({"role": "assistant", "content": "", "refusal": None})]
        self._begun = True
        match event:
            case SpanOpened(index=index, modality=modality):
                if modality is Modality.AUDIO:
                    self._voice.open(index)
                chunks.append(self._chunk({"omni": {"segments": [self._segments.by_index[index].opened()]}}))
            case TextDelta(text=text):
                aloud = self._envelope.audio_format is not None
                chunks.append(self._audio({"transcript": text}) if aloud else self._chunk({"content": text}))
            case ReasoningDelta(text=text):
                chunks.append(self._chunk({"reasoning_content": text}))
            case Heard(text=text):
                chunks.append(self._chunk({"omni": {"user_transcript": text}}))
            case ToolCalled():
                chunks.append(self._chunk({"tool_calls": [{"index": event.index, **call_part(self._envelope, event)}]}))
            case AudioDelta(index=index, samples=samples, sample_rate=sample_rate):
                chunks += self._spoken(self._voice.feed(index, samples), sample_rate)
            case ImageProgress() | ImagePreview():
                pass  # OpenAI's chat has no place for a picture that is not there yet
            case ImageReady(image=image):
                chunks.append(self._chunk({"images": [image_part(image, self._images)]}))
                self._images += 1
            case SpanClosed(index=index):
                chunks += self._closed(index)
            case Done():
                chunks += self._ending(event)
            case Failed(error=error):
                raise error
        return chunks

    def finish(self) -> list[Body]:
        """Nothing is held back: the last event already gave the last chunk."""
        return []

    def _closed(self, index: int) -> list[Body]:
        segment = self._segments.by_index[index]
        chunks = self._spoken(self._voice.close(index), segment.sample_rate)
        # Of the numbers in `opened()`, accumulators replace `index` and `type` and do not add them up.
        return [*chunks, self._chunk({"omni": {"segments": [segment.closed()]}})]

    def _spoken(self, samples: np.ndarray, sample_rate: int) -> list[Body]:
        if self._envelope.audio_format is None or not len(samples):
            return []
        if self._writer is None:
            self._writer = open_writer(self._envelope.audio_format, sample_rate)
        data = self._slices.feed(self._writer.feed(samples))
        return [self._audio({"data": data})] if data else []

    def _ending(self, done: Done) -> list[Body]:
        chunks = []
        if self._writer is not None:
            data = self._slices.feed(self._writer.finish()) + self._slices.finish()
            if data:
                chunks.append(self._audio({"data": data}))
        if self._audio_id_sent:
            expires_at = self._envelope.keep_transcript(self._envelope.audio_id, self._segments.text)
            chunks.append(self._chunk({"audio": {"expires_at": expires_at}}))
        chunks.append(self._chunk({}, done.finish_reason))
        if self._envelope.include_usage:
            usage = usage_body(done.usage)
            omni = {"seconds": done.seconds}
            chunks.append(self._envelope.wrap("chat.completion.chunk", choices=[], usage=usage, omni=omni))
        return chunks

    def _audio(self, update: Body) -> Body:
        if not self._audio_id_sent:
            self._audio_id_sent = True
            update = {"id": self._envelope.audio_id, **update}
        return self._chunk({"audio": update})

    def _chunk(self, delta: Body, finish_reason: str | None = None) -> Body:
        choice = {"index": 0, "delta": delta, "finish_reason": finish_reason, "logprobs": None}
        usage = {"usage": None} if self._envelope.include_usage else {}
        return self._envelope.wrap("chat.completion.chunk", choices=[choice], **usage)


class Base64Slices:
    """Base64 whose pieces, joined, are the base64 of the joined bytes; each piece ends on a whole 16-bit sample too."""

    GROUP = 6

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, piece: bytes) -> str:
        piece = self._rest + piece
        whole = len(piece) - len(piece) % self.GROUP
        self._rest = piece[whole:]
        return base64.b64encode(piece[:whole]).decode("ascii")

    def finish(self) -> str:
        rest, self._rest = self._rest, b""
        return base64.b64encode(rest).decode("ascii")


def call_part(envelope: Envelope, call: ToolCalled) -> Body:
    call_id = f"call_{envelope.id.removeprefix('chatcmpl-')}_{call.index}"
    return {"id": call_id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}


def image_part(image: PIL.Image.Image, index: int) -> Body:
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=1)
    url = "data:image/png;base64," + base64.b64encode(file.getvalue()).decode("ascii")
    return {"type": "image_url", "index": index, "image_url": {"url": url}}


def usage_body(usage: Usage) -> Body:
    prompt_media = usage.prompt_image_tokens + usage.prompt_audio_tokens
    completion_media = usage.completion_image_tokens + usage.completion_audio_tokens
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {
            "text_tokens": usage.prompt_tokens - prompt_media,
            "image_tokens": usage.prompt_image_tokens,
            "audio_tokens": usage.prompt_audio_tokens,
            "cached_tokens": usage.cached_tokens,
            "cache_write_tokens": 0,
        },
        "completion_tokens_details": {
            "text_tokens": usage.completion_tokens - completion_media,
            "image_tokens": usage.completion_image_tokens,
            "audio_tokens": usage.completion_audio_tokens,
            "reasoning_tokens": usage.reasoning_tokens,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }
