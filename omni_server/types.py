"""The nouns. Frozen values that the eight steps hand to each other; no torch, no web framework, no engine."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING

# 1 door: what was asked
from omni_server.asked import (
    REPLIES as REPLIES,
    AudioPart as AudioPart,
    Calling as Calling,
    DecodeOptions as DecodeOptions,
    ImagePart as ImagePart,
    MediaPart as MediaPart,
    MediaSource as MediaSource,
    Message as Message,
    Modality as Modality,
    Part as Part,
    Request as Request,
    Sampling as Sampling,
    TextPart as TextPart,
    Thinking as Thinking,
    ToolCall as ToolCall,
    VideoPart as VideoPart,
)
from omni_server.scores import Score as Score, TokenScore as TokenScore

if TYPE_CHECKING:
    import numpy as np
    import PIL.Image
    import torch

    from omni_server.errors import OmniError


# 2 load: media as plain values ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Picture:
    """A decoded RGB picture. `digest` is the SHA-256 of its pixels."""

    image: PIL.Image.Image
    digest: str


@dataclass(frozen=True, slots=True)
class Speech:
    """Decoded mono audio. `waveform`: float32 [n] in -1..1 at `sample_rate`; `digest` is the SHA-256 of its samples."""

    waveform: np.ndarray
    sample_rate: int
    digest: str

    @property
    def seconds(self) -> float:
        return len(self.waveform) / self.sample_rate


@dataclass(frozen=True, slots=True)
class Video:
    """Decoded frames at an even pace, and the sound beside them. `frames`: uint8 [n, height, width, 3]; `pace` is frames a
    second."""

    frames: np.ndarray
    pace: float
    digest: str
    sound: Speech | None = None

    @property
    def seconds(self) -> float:
        return len(self.frames) / self.pace


# 3 encode ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Encoding:
    """What the backbone gets of one picture, utterance or video: embeddings [n, hidden] and discrete codes, side by side."""

    modality: Modality
    digest: str
    embeddings: torch.Tensor
    codes: tuple[int, ...]
    aspect: float = 1.0  # width over height, of a picture
    seconds: float = 0.0
    sound: Encoding | None = None  # of a video


# 4 prompt ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Placeholder:
    """`length` prompt positions from `offset` that hold `encoding.embeddings` instead of token embeddings."""

    offset: int
    length: int
    encoding: Encoding


@dataclass(frozen=True, slots=True)
class Prompt:
    """Token ids with the places where continuous embeddings go, and a count of tokens by modality."""

    token_ids: tuple[int, ...]
    placeholders: tuple[Placeholder, ...] = ()
    image_tokens: int = 0
    audio_tokens: int = 0
    thinking: bool = False  # the template ended inside of the model's thoughts


# 5 backbone -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TokenChunk:
    """New token ids of a reply. `finish_reason` (`stop` or `length`) is set on the last chunk only; `scores`, one for each id,
    where the request asked for them."""

    token_ids: tuple[int, ...]
    finish_reason: str | None = None
    cached_tokens: int = 0
    scores: tuple[TokenScore, ...] = ()


# 6 route ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Band:
    """A fact of the checkpoint: ids `first` .. `first + size - 1` are codes of `modality`, between `open` and `close`."""

    modality: Modality
    first: int
    size: int
    open: int
    close: int


@dataclass(frozen=True, slots=True)
class Opened:
    """Span `index` of the reply begins. `ratio` is a picture's width to height, as the backbone chose it."""

    index: int
    modality: Modality
    ratio: str | None = None


@dataclass(frozen=True, slots=True)
class Codes:
    """Codes of span `index`: text token ids for text, 0-based codes for pictures and speech."""

    index: int
    codes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Closed:
    """Span `index` ends. `complete` is false where the reply was cut inside it."""

    index: int
    complete: bool = True


SpanEvent = Opened | Codes | Closed


# 7 decode, 8 reply ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens by modality; the `prompt_tokens` and `completion_tokens` include the others."""

    prompt_tokens: int = 0
    prompt_image_tokens: int = 0
    prompt_audio_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    completion_image_tokens: int = 0
    completion_audio_tokens: int = 0
    reasoning_tokens: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(*(getattr(self, each.name) + getattr(other, each.name) for each in fields(Usage)))


@dataclass(frozen=True, slots=True)
class SpanOpened:
    index: int
    modality: Modality


@dataclass(frozen=True, slots=True)
class TextDelta:
    """`scores` are those of the tokens since the last delta of this span, where the request asked for them."""

    index: int
    text: str
    scores: tuple[Score, ...] = ()


@dataclass(frozen=True, slots=True)
class ReasoningDelta:
    """Thoughts before the answer, apart from any span."""

    text: str


@dataclass(frozen=True, slots=True)
class Heard:
    """What the user said, in the model's own words."""

    text: str


@dataclass(frozen=True, slots=True)
class ToolCalled:
    """The model calls a tool; `arguments` is JSON text. `index` counts the calls of this reply."""

    index: int
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class AudioDelta:
    """`samples`: float32 [n] mono at `sample_rate`; the deltas of one span, joined, are one continuous waveform."""

    index: int
    samples: np.ndarray
    sample_rate: int


@dataclass(frozen=True, slots=True)
class ImageProgress:
    """`step` of a picture's `steps` is done."""

    index: int
    step: int
    steps: int


@dataclass(frozen=True, slots=True)
class ImagePreview:
    """A guess at the picture of span `index` before it is ready, of the same size."""

    index: int
    image: PIL.Image.Image


@dataclass(frozen=True, slots=True)
class ImageReady:
    index: int
    image: PIL.Image.Image


@dataclass(frozen=True, slots=True)
class SpanClosed:
    """`error` is set where this span's medium could not be made; the rest of the reply goes on."""

    index: int
    error: OmniError | None = None


@dataclass(frozen=True, slots=True)
class Done:
    """The one good ending. `seconds` maps a moment's name to seconds since the request was accepted."""

    finish_reason: str
    usage: Usage
    seconds: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Failed:
    """The one bad ending."""

    error: OmniError


Worded = TextDelta | ReasoningDelta | Heard | ToolCalled
Event = SpanOpened | Worded | AudioDelta | ImageProgress | ImagePreview | ImageReady | SpanClosed | Done | Failed
