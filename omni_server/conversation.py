"""What both sides have said, and what of it was heard. State without I/O: knows no model, no wire and no clock."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field

from omni_server.errors import RequestError
from omni_server.turns import Item
from omni_server.types import (
    AudioDelta,
    AudioPart,
    Done,
    Event,
    ImagePart,
    MediaSource,
    Message,
    Modality,
    Part,
    SpanClosed,
    SpanOpened,
    TextDelta,
    TextPart,
    ToolCall,
)
from omni_server.wording import shown

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
    calls: tuple[ToolCall, ...] = ()
    tool: str | None = None
    call_id: str = ""
    shown: bool = True  # false for the place of an answer of which nothing has come yet


class Conversation:
    """The turns so far, oldest first, as messages for the model. Where a turn is put in, what stands before it is told."""

    def __init__(self, history: Sequence[Message]) -> None:
        self._turns = [_turn(Item("", message)) for message in history]

    def __contains__(self, id: str) -> bool:
        return any(turn.id == id for turn in self._turns)

    def listen(self, turn_id: str, parts: Sequence[Part]) -> str | None:
        """The person's turn."""
        return self._append(_Turn(turn_id, "user", list(parts)))

    def reserve(self, id: str) -> None:
        """The place of an answer, whoever speaks next."""
        self._turns.append(_Turn(id, "assistant", shown=False))

    def begin(self, id: str) -> str | None:
        """Something has come of the answer; from now on others stand behind it."""
        place = self._place_of(id)
        self._turns[place].shown = True
        return self._before(place)

    def answer(self, id: str, text: str, images: Sequence[ImagePart] = ()) -> None:
        """The words, as far as they were heard, and the pictures of an answer that still has its place; the last version
        holds."""
        if id in self:
            parts: list[Part] = [TextPart(text)] if text.strip() else []
            self._turns[self._place_of(id)].parts = [*parts, *images]

    def place(self, item: Item, after: str | None = None) -> str | None:
        """Behind the turn `after`; "" is before all others, None behind them. Raises what is wrong with the two ids."""
        if item.id in self:
            told = f"`item.id` is {shown(item.id)}, which is in the conversation; expected a new one"
            raise RequestError(told, param="item.id", code="item_create_duplicate_item_id")
        if after and after not in self:
            told = f"`previous_item_id` is {shown(after)}, which is not in the conversation; expected one that is, or `root`"
            raise RequestError(told, param="previous_item_id", code="item_create_invalid_previous_item_id")
        if after is None:
            return self._append(_turn(item))
        place = self._place_of(after) + 1 if after else 0
        self._turns.insert(place, _turn(item))
        return self._before(place)

    def message_of(self, id: str) -> Message | None:
        """One turn alone, of which something has come."""
        turn = next((turn for turn in self._turns if turn.id == id and turn.shown), None)
        return Message(turn.role, tuple(turn.parts), tool_calls=turn.calls, tool=turn.tool) if turn is not None else None

    def name_of(self, call_id: str) -> str | None:
        """Of the tool that was called."""
        called = (turn for turn in self._turns if turn.calls and turn.call_id == call_id)
        return next((turn.calls[0].name for turn in called), None)

    def has_result(self, call_id: str) -> bool:
        return any(turn.role == "tool" and turn.call_id == call_id for turn in self._turns)

    def has_all_results(self, call_id: str) -> bool:
        """Every call that stands together with this one has its result."""
        beside: list[str] = []
        for turn in self._turns:
            if turn.calls:
                beside.append(turn.call_id)
            elif call_id in beside:
                break
            else:
                beside = []
        return all(map(self.has_result, beside))

    def forget(self, id: str) -> bool:
        """A turn that has never been; whether anybody has heard of it."""
        return self._turns.pop(self._place_of(id)).shown

    def trim(self) -> bool:
        """Drops the oldest exchange, up to the next turn of the person. False where only one is left."""
        later = [place for place, turn in enumerate(self._turns) if place and turn.role == "user"]
        if not later:
            return False
        self._turns = self._turns[later[0] :]
        return True

    def messages(self, *more: Part, instructions: str = "", latest: int = 0) -> tuple[Message, ...]:
        """Neighbouring turns of one side are one message, as where an answer was not heard at all. `latest`: only the so many
        last messages of the person and what stands between them; 0 for all. Instructions always stay."""
        turns = [*self._turns, _Turn("", "user", list(more))]
        messages: list[Message] = []
        for turn in (turn for turn in turns if turn.parts or turn.calls):
            last = messages[-1] if messages else None
            if last is not None and last.role == turn.role and turn.role != "tool":
                parts, calls = (*last.parts, *turn.parts), (*last.tool_calls, *turn.calls)
                messages[-1] = Message(turn.role, parts, tool_calls=calls)
            else:
                messages.append(Message(turn.role, tuple(turn.parts), tool_calls=turn.calls, tool=turn.tool))
        asked = [place for place, message in enumerate(messages) if message.role == "user"]
        first = asked[-latest] if latest and len(asked) > latest else 0
        told = [Message("system", (TextPart(instructions),))] if instructions else []
        return (*told, *(message for message in messages[:first] if message.role == "system"), *messages[first:])

    def _append(self, turn: _Turn) -> str | None:
        self._turns.append(turn)
        return self._before(len(self._turns) - 1)

    def _place_of(self, id: str) -> int:
        return next(place for place, turn in enumerate(self._turns) if turn.id == id)

    def _before(self, place: int) -> str | None:
        return next((turn.id for turn in reversed(self._turns[:place]) if turn.shown and turn.id), None)


def _turn(item: Item) -> _Turn:
    message = item.message
    return _Turn(item.id, message.role, list(message.parts), message.tool_calls, message.tool, item.call_id)


@dataclass(slots=True)
class OpenTurn:
    """The person's turn as it grows. `place`: where among the parts the voice stands."""

    id: str = field(default_factory=lambda: f"turn-{uuid.uuid4().hex[:12]}")
    parts: list[Part] = field(default_factory=list)
    place: int = 0
    start: float | None = None
    written_until: float = 0.0

    def spoken(self, recording: bytes) -> tuple[Part, ...]:
        return (*self.parts[: self.place], AudioPart(MediaSource("audio", data=recording)), *self.parts[self.place :])


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
