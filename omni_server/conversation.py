"""What both sides have said, and what of it was heard. State without I/O: knows no model, no wire and no clock."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from omni_server.types import (
    AudioDelta,
    Done,
    Event,
    ImagePart,
    Message,
    Modality,
    Part,
    SpanClosed,
    SpanOpened,
    TextDelta,
    TextPart,
)

SECONDS_PER_CHARACTER = 0.07  # of speech, where a span is broken off before its length is known


@dataclass(slots=True)
class _Span:
    modality: Modality
    text: str = ""
    seconds: float = 0.0
    closed: bool = False


class Spoken:
    """One answer as it comes: `feed(event)` with its sound in line. Words stand before the sound that says them."""

    def __init__(self, aloud: bool) -> None:
        self._aloud = aloud  # whether words count only when they are heard
        self._spans: dict[int, _Span] = {}
        self._complete = False

    def feed(self, event: Event) -> None:
        match event:
            case SpanOpened(index=index, modality=modality):
                self._spans[index] = _Span(modality)
            case TextDelta(index=index, text=text):
                self._spans[index].text += text
            case AudioDelta(index=index, samples=samples, sample_rate=rate):
                self._spans[index].seconds += len(samples) / rate
            case SpanClosed(index=index):
                self._spans[index].closed = True
            case Done():
                self._complete = True
            case _:
                pass

    @property
    def text(self) -> str:
        return "".join(span.text for span in self._in_order())

    @property
    def seconds(self) -> float:
        return sum(span.seconds for span in self._in_order())

    def heard(self, seconds: float) -> str:
        """The words of the first `seconds`. Of a span that was broken off midway, as many whole words as its share of the
        sound. Words without any sound after them count as heard once all sound was."""
        heard, words, left = "", "", seconds
        for span in self._in_order():
            if span.modality is Modality.TEXT:
                words += span.text
            elif span.modality is Modality.AUDIO:
                length = span.seconds if span.closed else max(span.seconds, len(words) * SECONDS_PER_CHARACTER)
                if not span.closed or left < length - 1e-3:
                    return heard + _share(words, left / length if length else 0.0)
                heard, words, left = heard + words, "", left - span.seconds
        return heard + words if self._complete or not self._aloud else heard

    def _in_order(self) -> list[_Span]:
        return [self._spans[index] for index in sorted(self._spans)]


def _share(words: str, share: float) -> str:
    """The first part of `words`, `share` of them by length, up to the end of a word."""
    if share >= 1.0:
        return words
    cut = words[: int(len(words) * max(share, 0.0))]
    if words[len(cut) : len(cut) + 1].isspace() or not cut:
        return cut
    head, space, _ = cut.rpartition(" ")
    return head if space else ""


@dataclass(slots=True)
class _Turn:
    id: str
    role: str
    parts: list[Part] = field(default_factory=list)


class Conversation:
    """The turns so far, oldest first, as messages for the model."""

    def __init__(self, instructions: str, history: Sequence[Message]) -> None:
        self._system = (Message("system", (TextPart(instructions),)),) if instructions else ()
        self._turns = [_Turn("", message.role, list(message.parts)) for message in history]

    def listen(self, turn_id: str, parts: Sequence[Part]) -> None:
        """The person's turn."""
        self._turns.append(_Turn(turn_id, "user", list(parts)))

    def answer(self, response_id: str, text: str, images: Sequence[ImagePart] = ()) -> None:
        """The words, as far as they were heard, and the pictures of an answer; the last version holds."""
        parts: list[Part] = [TextPart(text)] if text.strip() else []
        parts += images
        known = next((turn for turn in self._turns if turn.id == response_id), None)
        if known is None:
            known = _Turn(response_id, "assistant")
            self._turns.append(known)
        known.parts = parts

    def forget(self, *ids: str) -> None:
        """A turn that could not be answered at all, and its answer."""
        self._turns = [turn for turn in self._turns if turn.id not in ids]

    def trim(self) -> bool:
        """Drops the oldest exchange, up to the next turn of the person. False where only one is left."""
        later = [place for place, turn in enumerate(self._turns) if place and turn.role == "user"]
        if not later:
            return False
        self._turns = self._turns[later[0] :]
        return True

    def messages(self, *more: Part) -> tuple[Message, ...]:
        """Neighbouring turns of one side are one message, as where an answer was not heard at all."""
        turns = [*self._turns, _Turn("", "user", list(more))]
        messages: list[Message] = []
        for turn in (turn for turn in turns if turn.parts):
            if messages and messages[-1].role == turn.role:
                messages[-1] = Message(turn.role, (*messages[-1].parts, *turn.parts))
            else:
                messages.append(Message(turn.role, tuple(turn.parts)))
        return (*self._system, *messages)


class Playback:
    """How much of an answer has been heard: it plays at its own speed from when it arrives, and waits where it runs dry."""

    def __init__(self) -> None:
        self._seconds = 0.0  # of sound that was sent
        self._until = 0.0  # when it will all have been heard
        self._reported: float | None = None

    def feed(self, seconds: float, now: float) -> None:
        self._seconds += seconds
        self._until = max(self._until, now) + seconds

    def report(self, heard: float) -> None:
        """What the player itself says is better than any clock."""
        self._reported = min(max(heard, self._reported or 0.0), self._seconds)

    def heard(self, now: float) -> float:
        if self._reported is not None:
            return self._reported
        return max(0.0, self._seconds - max(0.0, self._until - now))

    def remaining(self, now: float) -> float:
        if self._reported is not None:
            return max(0.0, self._seconds - self._reported)
        return max(0.0, self._until - now)
