"""One answer of a live conversation: begun, perhaps before it is wanted; sent; and heard to its end."""

from __future__ import annotations

import asyncio
import io
import logging
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import PIL.Image

from omni_server.conversation import Playback, Spoken
from omni_server.door import Responder
from omni_server.errors import ContextOverflow, OmniError
from omni_server.segments import SpansInLine
from omni_server.tempo import Tempo
from omni_server.turns import Ending, ResponseDone, ResponsePart, SessionEvent, Transcript, Wish
from omni_server.types import (
    AudioDelta,
    Done,
    Event,
    Failed,
    ImagePart,
    ImageReady,
    MediaSource,
    Modality,
    Part,
    Request,
    SpanClosed,
    TextDelta,
)

_log = logging.getLogger(__name__)


class Answer:
    """`run` plays it. Until `want` is called, nobody hears of it, and cancelling `run` leaves no trace."""

    def __init__(self, wish: Wish, parts: tuple[Part, ...], clock: Callable[[], float]) -> None:
        self.id = f"response-{uuid.uuid4().hex[:12]}"
        self.item_id = f"item-{uuid.uuid4().hex[:12]}"  # its place in the conversation
        self.wish = wish
        self.parts = parts  # of the person's turn that it answers
        self.spoken = Spoken(Modality.AUDIO in wish.settings.modalities)
        self.playback = Playback()
        self.images: list[ImagePart] = []
        self.turn_id = ""  # once the turn is over
        self.made = False  # nothing more will be made of it
        self.begun = False  # something has come of it
        self.last_item = self.item_id  # behind which its next call stands
        self.first_audio: float | None = None
        self._clock = clock
        self._wanted = asyncio.Event()
        self._wanted_at = 0.0
        self._delivered = asyncio.Event()
        self._nudged = asyncio.Event()
        self._hurried = False

    def want(self) -> None:
        """The turn is over, and this is its answer."""
        self._wanted_at = self._clock()
        self._wanted.set()

    def delivered(self) -> None:
        """Everything that was made has reached the client."""
        self._delivered.set()

    def report(self, heard: float) -> None:
        self.playback.report(heard)
        self._nudged.set()

    def hurry(self) -> None:
        """Nobody will speak any more, so there is nobody to wait for."""
        self._hurried = True
        self._nudged.set()

    async def run(
        self,
        responder: Responder,
        request: Callable[[], Request],
        trim: Callable[[], bool],
        post: Callable[[SessionEvent], Awaitable[None]],
    ) -> ResponseDone:
        """Ends when all has been made; what goes wrong is how it ends, not an exception."""
        try:
            async with _room_made(responder, request, trim) as events:
                await self._wanted.wait()
                done = await self._send(events, post)
        except Exception as fault:  # noqa: BLE001 - an answer that has begun must end, whatever happens in it
            error = fault if isinstance(fault, OmniError) else OmniError("an internal error ended this answer")
            if error is not fault:
                _log.exception("an answer of a live conversation failed")
            await self._wanted.wait()
            return self._done(Ending.FAILED, error=error)
        return self._done(Ending.INCOMPLETE if done.finish_reason == "length" else Ending.COMPLETED, done)

    async def heard_out(self) -> None:
        """Waits until the person has heard it to its end, as far as is known."""
        await self._delivered.wait()
        while not self._hurried and (left := self.playback.remaining(self._clock())) > 0:
            self._nudged.clear()
            try:
                async with asyncio.timeout(left):
                    await self._nudged.wait()
            except TimeoutError:
                pass

    def broken_off(self, ending: Ending) -> ResponseDone:
        return self._done(ending)

    def _done(self, ending: Ending, done: Done | None = None, error: OmniError | None = None) -> ResponseDone:
        self.made = True
        return ResponseDone(self.id, ending, done, error, self.first_audio, self.spoken.seconds)

    async def _send(self, events: AsyncIterator[Event], post: Callable[[SessionEvent], Awaitable[None]]) -> Done:
        line, pace = SpansInLine(), Pace(self.wish.settings.speed)
        async for event in events:
            for released in (paced for inside in line.feed(event) for paced in pace.feed(inside)):
                self.spoken.feed(released)
                match released:
                    case TextDelta():
                        await post(Transcript(self.id, "assistant", self.spoken.text, final=False))
                    case AudioDelta():
                        if self.first_audio is None:
                            self.first_audio = self._clock() - self._wanted_at
                        await post(ResponsePart(self.id, released))
                    case ImageReady(image=image):
                        png = await asyncio.to_thread(_png, image)
                        self.images.append(ImagePart(MediaSource("history", data=png)))
                        await post(ResponsePart(self.id, released))
                    case Done():
                        return released
                    case Failed(error=error):
                        raise error
                    case _:
                        await post(ResponsePart(self.id, released))
        raise OmniError("a reply ended without an ending")


class Pace:
    """The sound of each span faster or slower; its end, which is known late, comes before the span's."""

    def __init__(self, speed: float) -> None:
        self._speed = speed
        self._spans: dict[int, tuple[Tempo, int]] = {}  # and its sample rate

    def feed(self, event: Event) -> list[Event]:
        match event:
            case AudioDelta(index=index, samples=samples, sample_rate=rate) if self._speed != 1.0:
                tempo, _ = self._spans.setdefault(index, (Tempo(self._speed, rate), rate))
                return [AudioDelta(index, tempo.feed(samples), rate)]
            case SpanClosed(index=index) if index in self._spans:
                tempo, rate = self._spans.pop(index)
                return [AudioDelta(index, tempo.finish(), rate), event]
            case _:
                return [event]


@asynccontextmanager
async def _room_made(
    responder: Responder, request: Callable[[], Request], trim: Callable[[], bool]
) -> AsyncIterator[AsyncIterator[Event]]:
    """The reply's events. A conversation that has outgrown the context loses its oldest exchanges, one by one."""
    while True:
        async with AsyncExitStack() as stack:
            try:
                events = await stack.enter_async_context(responder.respond(request()))
            except ContextOverflow:
                if not trim():
                    raise
                continue
            yield events
            return


def _png(image: PIL.Image.Image) -> bytes:
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()
