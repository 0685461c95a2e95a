"""Step 8. Events become OpenAI's chat answer, and the parts that a stream of chunks shares with it. Sync, no sockets, no clock.

Spans of a reply may overlap in time: a slow picture does not hold back the voice after it. What OpenAI's shape wants in
order is put in order here: the voice of all spans is one continuous file, `omni.segments` tells the order of all.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import PIL.Image

from omni_server.audio_format import encode
from omni_server.errors import OmniError
from omni_server.segments import Body, Segments, VoiceLine
from omni_server.types import (
    AudioDelta,
    Done,
    Event,
    Failed,
    Heard,
    Modality,
    ReasoningDelta,
    Score,
    SpanClosed,
    SpanOpened,
    TextDelta,
    ToolCalled,
    Usage,
)

LEAST = -9999.0


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
    scored: bool = False  # likelihoods were asked for

    def audio_id(self, choice: int) -> str:
        return "audio_" + self.id.removeprefix("chatcmpl-") + (f"_{choice}" if choice else "")

    def wrap(self, object_name: str, **rest: Any) -> Body:
        return {"id": self.id, "object": object_name, "created": self.created, "model": self.model, **rest}


class ChatChoice:
    """Collects the events of one choice; `finish()` is its body in a plain answer."""

    def __init__(self, envelope: Envelope, choice: int = 0) -> None:
        self._envelope = envelope
        self._choice = choice
        self._scores: list[Score] = []
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
            case TextDelta(scores=scores):
                self._scores += scores
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
                self._calls.append(call_part(self._envelope, self._choice, event))
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
        logprobs = logprobs_body(self._scores) if self._envelope.scored else None
        return {
            "index": self._choice,
            "message": message,
            "finish_reason": self._done.finish_reason,
            "logprobs": logprobs,
        }

    def _audio(self, transcript: str) -> Body:
        assert self._envelope.audio_format is not None
        file = encode(self._envelope.audio_format, np.concatenate(self._heard), self._sample_rate)
        audio_id = self._envelope.audio_id(self._choice)
        return {
            "id": audio_id,
            "data": base64.b64encode(file).decode("ascii"),
            "expires_at": self._envelope.keep_transcript(audio_id, transcript),
            "transcript": transcript,
        }


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


def call_part(envelope: Envelope, choice: int, call: ToolCalled) -> Body:
    call_id = f"call_{envelope.audio_id(choice).removeprefix('audio_')}_{call.index}"
    return {"id": call_id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}


def image_part(image: PIL.Image.Image, index: int) -> Body:
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=1)
    url = "data:image/png;base64," + base64.b64encode(file.getvalue()).decode("ascii")
    return {"type": "image_url", "index": index, "image_url": {"url": url}}


def logprobs_body(scores: Sequence[Score]) -> Body:
    return {"content": [scored_token(score) for score in scores], "refusal": None}


def scored_token(score: Score) -> Body:
    likeliest = [_likely(token, logprob) for token, logprob in score.likeliest]
    return {**_likely(score.token, score.logprob), "top_logprobs": likeliest}


def _likely(token: str, logprob: float) -> Body:
    # A token may be a part of a letter: then its bytes cannot be told from its text.
    told = None if "\N{REPLACEMENT CHARACTER}" in token else list(token.encode())
    # What a mask forbids has no likelihood at all, and JSON has no infinity.
    return {"token": token, "logprob": max(logprob, LEAST), "bytes": told}


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
