"""The nouns of a live conversation: how it is to be held, and what happens in it. Frozen values; no wire, no clock."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from omni_server.errors import OmniError
from omni_server.listening import TurnSettings
from omni_server.types import (
    AudioDelta,
    Calling,
    DecodeOptions,
    Done,
    Heard,
    ImagePreview,
    ImageProgress,
    ImageReady,
    Message,
    Modality,
    ReasoningDelta,
    Sampling,
    SpanClosed,
    SpanOpened,
    Thinking,
    ToolCalled,
)


@dataclass(frozen=True, slots=True)
class SessionSettings:
    """How one conversation is to be held. `ahead`: read the conversation and begin the answer before the turn is surely
    over; nobody hears of it unless it is. `interim`: write down turns that are not over, too."""

    modalities: frozenset[Modality] = frozenset({Modality.TEXT, Modality.AUDIO})
    instructions: str = ""
    history: tuple[Message, ...] = ()
    voice: str | None = None
    speed: float = 1.0
    sampling: Sampling = field(default_factory=Sampling)
    turns: TurnSettings = field(default_factory=TurnSettings)
    transcribes: bool = False
    interim: bool = True
    language: str | None = None  # of what is written down, where it is known
    tools: tuple[Mapping[str, Any], ...] = ()  # that may be called
    calling: Calling = field(default_factory=Calling)
    thinking: Thinking = field(default_factory=Thinking)
    drawing: DecodeOptions = field(default_factory=DecodeOptions)  # of pictures; who speaks and the seed stand above
    ahead: bool = True


@dataclass(frozen=True, slots=True)
class Wish:
    """One answer that is asked for by itself. `messages`: to these, and not to the conversation; `kept`: whether it
    becomes part of the conversation."""

    settings: SessionSettings
    messages: tuple[Message, ...] | None = None
    kept: bool = True


@dataclass(frozen=True, slots=True)
class Item:
    """What a client puts into the conversation by itself. A call of a tool, and what came of it, share a `call_id`."""

    id: str
    message: Message
    call_id: str = ""


class Ending(StrEnum):
    """How an answer ended."""

    COMPLETED = "completed"
    INCOMPLETE = "incomplete"
    INTERRUPTED = "interrupted"
    CANCELLED = "cancelled"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class SpeechStarted:
    turn_id: str
    start: float


@dataclass(frozen=True, slots=True)
class SpeechStopped:
    turn_id: str
    end: float


@dataclass(frozen=True, slots=True)
class TurnCommitted:
    """The turn is part of the conversation; it holds `seconds` of sound."""

    turn_id: str
    seconds: float
    previous: str | None = None  # what stands before it in the conversation


@dataclass(frozen=True, slots=True)
class ItemPlaced:
    """It is part of the conversation, after `previous`."""

    item_id: str
    previous: str | None


@dataclass(frozen=True, slots=True)
class ItemDropped:
    item_id: str


@dataclass(frozen=True, slots=True)
class Transcript:
    """All words so far of one side's turn; `id` is a turn's or an answer's."""

    id: str
    role: str
    text: str
    final: bool


@dataclass(frozen=True, slots=True)
class ResponseStarted:
    """`turn_id`: of the person's turn that it answers, if it answers one."""

    response_id: str
    turn_id: str


@dataclass(frozen=True, slots=True)
class AnswerBegun:
    """Something comes of the answer, which is part of the conversation as `item_id`, after `previous`."""

    response_id: str
    item_id: str
    previous: str | None


ReplyPart = (
    SpanOpened | AudioDelta | ImageProgress | ImagePreview | ImageReady | SpanClosed | ReasoningDelta | Heard | ToolCalled
)


@dataclass(frozen=True, slots=True)
class ResponsePart:
    """An event of the answer's reply. All its sound, joined, is one line."""

    response_id: str
    event: ReplyPart


@dataclass(frozen=True, slots=True)
class CallMade:
    """The answer calls a tool; `index` counts its calls, `arguments` is JSON text. The call is part of the conversation as
    `item_id`, after `previous`."""

    response_id: str
    item_id: str
    previous: str | None
    index: int
    call_id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class ResponseDone:
    """Nothing more of this answer will be made. `first_audio`: seconds from the end of the turn to the first sound."""

    response_id: str
    ending: Ending
    done: Done | None = None
    error: OmniError | None = None
    first_audio: float | None = None
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Interrupted:
    """The speaker spoke over the answer after `heard` seconds of it; `text` is what stays of its words."""

    response_id: str
    heard: float
    text: str


@dataclass(frozen=True, slots=True)
class TurnComplete:
    """The answer has been heard to its end, or broken off."""

    response_id: str


@dataclass(frozen=True, slots=True)
class Truncated:
    response_id: str
    heard: float
    text: str


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something could not be taken; the conversation goes on without it. `turn_id`: of a turn that could not be written
    down."""

    error: OmniError
    turn_id: str = ""


@dataclass(frozen=True, slots=True)
class GoAway:
    seconds: float


SessionEvent = (
    SpeechStarted
    | SpeechStopped
    | TurnCommitted
    | ItemPlaced
    | ItemDropped
    | Transcript
    | ResponseStarted
    | AnswerBegun
    | ResponsePart
    | CallMade
    | ResponseDone
    | Interrupted
    | TurnComplete
    | Truncated
    | Trouble
    | GoAway
)
