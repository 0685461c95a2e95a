"""Step 1. Where a request waits for room, or is refused and told when there will be some: the async side of admission."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager
from dataclasses import replace

from omni_server.admission import Admission, Hopeless, Later, Place, Scarce, Wish
from omni_server.call import current_call
from omni_server.drain import Drain
from omni_server.errors import DeadlineExceeded, Overloaded
from omni_server.measures import Measures
from omni_server.types import MediaPart, Modality, Prompt, Request, TextPart
from omni_server.watch import WatchedReply

REPLY_TOKENS = 256  # that a reply is expected to have before there has been one of its kind
MEDIUM_TOKENS = 256  # that a picture, an utterance or a video is expected to take in a prompt before it is read
LETTERS = 3  # of text to a token, likewise
ENDED_WELL = ("stop", "length", "tool_calls")
WANTING = {
    "tokens": "the engine's memory is full",
    "replies": "as many replies are being made as can be",
    "voices": "as many voices are being made as can be",
    "pictures": "as many pictures are being drawn as can be",
    "queue": "too many requests are waiting",
    "deadline": "the deadline could not be met now",
    "kept": "the time that was told has not come yet",
}


class Seat:
    """The place of one reply while it is made; `request` is how it is to be made."""

    def __init__(self, admission: Admission, place: Place, request: Request) -> None:
        self._admission, self._place, self.request = admission, place, request

    def settle(self, prompt: Prompt) -> None:
        """The prompt is known, and so is what the reply will take of the engine's memory, but for its own length."""
        expected = _expected(self._admission, self.request, self._place.kind)
        self._admission.settle(self._place, len(prompt.token_ids) + expected)


class Gate:
    """One for all replies of a pipeline; without an `admission` everybody comes in. `hurries`: voices can be made to start
    earlier than this deployment has them, by a shorter look-ahead."""

    def __init__(self, admission: Admission | None = None, measures: Measures | None = None, hurries: bool = False) -> None:
        self._hurries = hurries
        self._admission = admission or Admission({}, most=1 << 30, patience=float("inf"))
        self._rooms: dict[Place, asyncio.Event] = {}
        if measures is not None:
            measures.watch_admission(self._admission)

    @property
    def crowded(self) -> bool:
        """Somebody waits for room, so nothing should be done that nobody has asked for."""
        return self._admission.waiting > 0

    @asynccontextmanager
    async def seat(self, request: Request, watched: WatchedReply, drain: Drain) -> AsyncIterator[Seat]:
        """Waits for room where there will be some soon. Raises Overloaded with the time at which there will be some, or
        DeadlineExceeded where there cannot be in time."""
        place, request = self._ask(request)
        try:
            if place.started is None:
                room = self._rooms[place] = asyncio.Event()
                with watched.timeline.stage("queue"):
                    async with drain.in_time():
                        await room.wait()
            started = watched.timeline.elapsed()
            yield Seat(self._admission, place, request)
        finally:
            first = watched.first_sound - started if watched.first_sound is not None else None
            written = watched.usage.completion_tokens if watched.ending in ENDED_WELL else None
            self._rooms.pop(place, None)
            self._admission.leave(place, time.monotonic(), written, first, broke=watched.ending == "error")
            self._call_in()

    def _ask(self, request: Request) -> tuple[Place, Request]:
        """A place, and the request as it is to be made: where need be with an earlier first sound, of a little less quality."""
        call, now = current_call(), time.monotonic()
        planned, first_within = [request], None
        if call is not None and Modality.AUDIO in request.modalities:
            first_within = call.first_audio_within
        if first_within is not None and self._hurries:
            planned.append(replace(request, decode=replace(request.decode, look_ahead="low_latency")))
        within = call.seconds_left() if call is not None else None
        wishes = [self._wish(plan, within, first_within) for plan in planned]
        chosen = next((number for number, wish in enumerate(wishes) if self._admission.suits(wish)), len(wishes) - 1)
        match self._admission.ask(wishes[chosen], now):
            case Place() as place:
                if call is not None and first_within is not None:
                    call.plans.add(planned[chosen].decode.look_ahead or "deployed")
                return place, planned[chosen]
            case Later(seconds, reason):
                told = f"{WANTING[reason]}; expected the same request again in `{seconds:.1f}` seconds"
                raise Overloaded(told, retry_after=seconds)
            case Hopeless(seconds):
                told = f"the time given is too short for a request of this kind; expected more than `{seconds:.1f}` seconds"
                raise DeadlineExceeded(told)

    def _wish(self, request: Request, within: float | None, first_within: float | None) -> Wish:
        kind = kind_of(request)
        return Wish(_demand(self._admission, request, kind), kind, lambda: content_of(request), within, first_within)

    def _call_in(self) -> None:
        for place in [place for place in self._rooms if place.started is not None]:
            self._rooms.pop(place).set()


def kind_of(request: Request) -> Hashable:
    """Requests that are alike in what decides how long they take."""
    media = frozenset(type(part) for message in request.messages for part in message.parts if isinstance(part, MediaPart))
    plan = request.decode.look_ahead
    return request.modalities, plan, media, (request.sampling.max_tokens or 0).bit_length(), _letters(request).bit_length() // 2


def content_of(request: Request) -> Hashable:
    """Equal where the same request comes again, though it has a new id, and a new seed if the door rolls it. Of media the ends
    are compared, for a refusal must cost little."""
    parts: list[Hashable] = [request.modalities, request.sampling.max_tokens, request.decode.voice, request.verbatim]
    for message in request.messages:
        for part in message.parts:
            if isinstance(part, TextPart):
                parts.append((message.role, part.text))
            else:
                data = part.source.data or b""
                parts.append((message.role, part.source.url, len(data), data[:4096], data[-4096:]))
    return hash(tuple(parts))


def _demand(admission: Admission, request: Request, kind: Hashable) -> dict[Scarce, float]:
    media = sum(isinstance(part, MediaPart) for message in request.messages for part in message.parts)
    prompt = _letters(request) / LETTERS + media * MEDIUM_TOKENS
    return {
        Scarce.TOKENS: prompt + _expected(admission, request, kind),
        Scarce.REPLIES: 1,
        Scarce.VOICES: Modality.AUDIO in request.modalities,
        Scarce.PICTURES: Modality.IMAGE in request.modalities,
    }


def _expected(admission: Admission, request: Request, kind: Hashable) -> float:
    """Tokens of the reply."""
    return admission.written(kind) or min(request.sampling.max_tokens or REPLY_TOKENS, REPLY_TOKENS)


def _letters(request: Request) -> int:
    texts = sum(len(part.text) for message in request.messages for part in message.parts if isinstance(part, TextPart))
    verbatim = request.verbatim or ""
    return texts + len(verbatim) * (1 if isinstance(verbatim, str) else LETTERS)
