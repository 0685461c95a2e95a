"""What happens in a live conversation: frozen values, in the order in which they arrive. Knows no wire.

Each answer is: ResponseStarted; spans, sound and captions; ResponseDone; TurnComplete. An interruption may come anywhere
between ResponseStarted and TurnComplete, for an answer is heard later than it is made.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

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

Status = Literal["completed", "incomplete", "interrupted", "cancelled", "failed"]


@dataclass(frozen=True, slots=True)
class Ready:
    """No event, but what a call has from its beginning: the conversation may begin, and this is what holds. Sample rates are
    per second; `session_id` is what the server's log calls the conversation."""

    session_id: str
    model: str
    voice: str
    modalities: tuple[Modality, ...]
    input_sample_rate: int
    output_sample_rate: int


@dataclass(frozen=True, slots=True)
class SpeechStarted:
    """The person speaks: a voice was heard, `start` seconds into all sound that was sent."""

    turn_id: str
    start: float


@dataclass(frozen=True, slots=True)
class SpeechStopped:
    """The person has been silent for a while: the voice ended `end` seconds into all sound that was sent."""

    turn_id: str
    end: float


@dataclass(frozen=True, slots=True)
class TurnCommitted:
    """The person's turn is over and part of the conversation. `seconds` is how much sound it holds."""

    turn_id: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Caption:
    """What one side says, in words: all of them so far, which replace those before. `id` is the person's turn or the
    response; `final` is set on the last one of each."""

    id: str
    role: Literal["user", "assistant"]
    text: str
    final: bool


@dataclass(frozen=True, slots=True)
class ResponseStarted:
    """The model answers the person's turn `turn_id`."""

    response_id: str
    turn_id: str


@dataclass(frozen=True, slots=True)
class ResponseDone:
    """All of the answer has been made and sent, or will not be; `status` says how it ended, `error` why it failed. `usage`
    and `timing` (moments to seconds since the answer was begun) are there where it ended by itself. `turn_to_first_audio` is
    the pause that the person heard, in seconds; `audio` is how many seconds of sound were made."""

    response_id: str
    status: Status
    usage: Usage | None = None
    timing: Mapping[str, float] = field(default_factory=dict)
    turn_to_first_audio: float | None = None
    audio: float = 0.0
    error: SpanError | None = None


@dataclass(frozen=True, slots=True)
class Interrupted:
    """The person spoke over the answer: drop what is queued for playing. `heard` is how many seconds of it were heard, `text`
    what of its words stays in the conversation."""

    response_id: str
    heard: float
    text: str


@dataclass(frozen=True, slots=True)
class TurnComplete:
    """The model's turn is over: heard to its end, or broken off."""

    response_id: str


@dataclass(frozen=True, slots=True)
class Truncated:
    """The words of an answer in the conversation have been cut to `text`, because only `heard` seconds of it were heard."""

    response_id: str
    heard: float
    text: str


@dataclass(frozen=True, slots=True)
class Refused:
    """Something that was sent could not be taken; the conversation goes on without it. `param` names the field, if one was
    wrong."""

    message: str
    code: str
    param: str | None = None


@dataclass(frozen=True, slots=True)
class GoAway:
    """The server is about to stop: this conversation may go on for `seconds` more."""

    seconds: float


CallEvent = (
    SpeechStarted
    | SpeechStopped
    | TurnCommitted
    | Caption
    | ResponseStarted
    | SpanOpened
    | ReasoningDelta
    | Heard
    | ToolCalled
    | AudioDelta
    | ImagePreview
    | ImageReady
    | SpanClosed
    | ResponseDone
    | Interrupted
    | TurnComplete
    | Truncated
    | Refused
    | GoAway
)
