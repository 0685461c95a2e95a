"""What a streamed reply consists of: frozen values, in the order in which they arrive. Knows no wire.

A reply is a row of spans, each of one modality. Within a span order is kept; spans may overlap, so a slow picture does not
hold back the voice after it. A stream that does not raise ends in exactly one `Done`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from omni_client.media import Picture

Modality = Literal["text", "image", "audio"]


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens by modality. `prompt_tokens` and `completion_tokens` include the others of their side."""

    prompt_tokens: int = 0
    prompt_image_tokens: int = 0
    prompt_audio_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    completion_image_tokens: int = 0
    completion_audio_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        """Both sides together."""
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True, slots=True)
class SpanError:
    """Why one span could not be made, while the rest of the reply stands."""

    message: str
    type: str | None = None
    code: str | None = None


@dataclass(frozen=True, slots=True)
class SpanOpened:
    """Span `index` of the reply begins."""

    index: int
    modality: Modality


@dataclass(frozen=True, slots=True)
class TextDelta:
    """The next words of span `index`. In a spoken reply they are what the voice says."""

    index: int
    text: str


@dataclass(frozen=True, slots=True)
class ReasoningDelta:
    """The next words of what the model thinks before it answers; no part of the answer."""

    text: str


@dataclass(frozen=True, slots=True)
class Heard:
    """More of what the model heard the person say, where it writes that down itself."""

    text: str


@dataclass(frozen=True, slots=True)
class ToolCalled:
    """The model asks for tool `name` with `arguments`, a JSON object as text. Answer with a turn
    `{"role": "tool", "tool_call_id": id, "content": ...}`."""

    index: int
    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class AudioDelta:
    """The next piece of the voice: `pcm` is 16-bit little-endian mono at `sample_rate`, `start` its place in seconds. The
    voice of all spans is one line, so the pieces, joined, are the whole of it."""

    pcm: bytes
    sample_rate: int
    start: float


@dataclass(frozen=True, slots=True)
class ImagePreview:
    """The picture of span `index` as far as it is made, from 0 to 1 in `progress`."""

    index: int
    picture: Picture
    progress: float


@dataclass(frozen=True, slots=True)
class ImageReady:
    """The picture of span `index` is finished."""

    index: int
    picture: Picture


@dataclass(frozen=True, slots=True)
class SpanClosed:
    """Span `index` is complete, or its medium could not be made, and `error` says why. `seconds` is how long a voice is,
    where the server says so."""

    index: int
    error: SpanError | None = None
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Done:
    """The end. `finish_reason` is `stop`, `tool_calls`, or `length` where a limit cut the reply. `seconds` maps moments on the
    server, such as `first_token`, `first_audio` and `total`, to seconds since it accepted the request; empty where it does not
    say."""

    finish_reason: str
    usage: Usage | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)


Event = (
    SpanOpened | TextDelta | ReasoningDelta | Heard | ToolCalled | AudioDelta | ImagePreview | ImageReady | SpanClosed | Done
)
