"""The nouns of a live conversation: how it is to be held, and what happens in it. Frozen values; no wire, no clock."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from omni_server.errors import OmniError
from omni_server.listening import TurnSettings
from omni_server.types import AudioDelta, Done, ImageReady, Message, Modality, Sampling, SpanClosed, SpanOpened


@dataclass(frozen=True, slots=True)
class SessionSettings:
    """How one conversation is to be held. `ahead`: read the conversation and begin the answer before the turn is surely
    over; nobody hears of it unless it is."""

    modalities: frozenset[Modality] = frozenset({Modality.TEXT, Modality.AUDIO})
    instructions: str = ""
    history: tuple[Message, ...] = ()
    voice: str | None = None
    sampling: Sampling = field(default_factory=Sampling)
    turns: TurnSettings = field(default_factory=TurnSettings)
    transcribes: bool = False
    ahead: bool = True


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


@dataclass(frozen=True, slots=True)
class Transcript:
    """All words so far of one side's turn; `id` is a turn's or an answer's."""

    id: str
    role: str
    text: str
    final: bool


@dataclass(frozen=True, slots=True)
class ResponseStarted:
    response_id: str
    turn_id: str


@dataclass(frozen=True, slots=True)
class ResponsePart:
    """An event of the answer's reply. All its sound, joined, is one line."""

    response_id: str
    event: SpanOpened | AudioDelta | ImageReady | SpanClosed


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
    """Something could not be taken; the conversation goes on without it."""

    error: OmniError


@dataclass(frozen=True, slots=True)
class GoAway:
    seconds: float


SessionEvent = (
    SpeechStarted
    | SpeechStopped
    | TurnCommitted
    | Transcript
    | ResponseStarted
    | ResponsePart
    | ResponseDone
    | Interrupted
    | TurnComplete
    | Truncated
    | Trouble
    | GoAway
)
