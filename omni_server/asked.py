"""The nouns of a request, from the door on: what was asked, in which parts, and how it is to be answered. Frozen values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np


class Modality(StrEnum):
    """What a span of a reply, or a part of a message, is made of."""

    TEXT = "text"
    IMAGE = "image"
    AUDIO = "audio"
    VIDEO = "video"  # in messages only


REPLIES = frozenset({Modality.TEXT, Modality.IMAGE, Modality.AUDIO})  # what a reply can be made of


# 1 door: what was asked ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class MediaSource:
    """Media as the client handed it over: bytes, or a URL to fetch. `param` is the request field, for error messages."""

    param: str
    data: bytes | None = None
    url: str | None = None


@dataclass(frozen=True, slots=True)
class TextPart:
    text: str


@dataclass(frozen=True, slots=True)
class ImagePart:
    source: MediaSource


@dataclass(frozen=True, slots=True)
class AudioPart:
    source: MediaSource


@dataclass(frozen=True, slots=True)
class VideoPart:
    source: MediaSource


MediaPart = ImagePart | AudioPart | VideoPart
Part = TextPart | MediaPart


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call that the model made in an earlier turn; `arguments` are JSON values by name."""

    name: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Message:
    """One turn. `role` is `system`, `user`, `assistant` or `tool`; a tool's answer names the `tool`."""

    role: str
    parts: tuple[Part, ...]
    reasoning: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    tool: str | None = None


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the backbone picks tokens. `None` leaves the checkpoint's own default."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    seed: int | None = None
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    adapter: str | None = None  # by name, of those this deployment serves beside the model
    logprobs: int | None = None  # how many likely tokens are told beside each token of text; None: no likelihoods at all
    logit_bias: tuple[tuple[int, float], ...] = ()  # token id, and what is added to its logit
    form: Mapping[str, Any] | None = None  # a JSON schema that the whole reply follows
    calls: Mapping[str, Any] | None = None  # what the whole reply follows, in vLLM's words: calls of tools
    may_call: bool = False  # a reply that was asked for aloud may do without a voice, for it may call a tool instead


@dataclass(frozen=True, slots=True)
class DecodeOptions:
    """How spans become media: the voice's name, or a recording of it (float32 [n] at the voice's rate); the picture's ratio
    (width to height), seed, number of sampler steps, and how many previews are shown on the way. `look_ahead`: how far the
    voice waits for the units to come, `low_latency` or `exact`; `None` is as the deployment has it."""

    voice: str | None = None
    reference: np.ndarray | None = None
    ratio: str = "1:1"
    seed: int | None = None
    steps: int | None = None
    previews: int = 0
    look_ahead: str | None = None


@dataclass(frozen=True, slots=True)
class Thinking:
    """Whether the model thinks before it answers (`None`: the checkpoint's own habit), and in how many tokens at most."""

    wanted: bool | None = None
    budget: int | None = None


@dataclass(frozen=True, slots=True)
class Calling:
    """Whether the reply must be a call of a tool, of which one (`None`: any), and whether it may be several."""

    required: bool = False
    named: str | None = None
    several: bool = True


@dataclass(frozen=True, slots=True)
class Request:
    """One accepted request, whichever door it came through. `verbatim` are words, or token ids, that the model goes on from;
    they take the place of a conversation, and no chat template is put around them."""

    request_id: str
    messages: tuple[Message, ...]
    modalities: frozenset[Modality] = frozenset({Modality.TEXT})
    sampling: Sampling = Sampling()
    decode: DecodeOptions = DecodeOptions()
    tools: tuple[Mapping[str, Any], ...] = ()
    calling: Calling = Calling()
    thinking: Thinking = Thinking()
    verbatim: str | tuple[int, ...] | None = None
