"""Step 8. The pipeline with a meter on it: what a reply makes is counted in its caller's ledger. The one joint of all doors."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from omni_server.access import current_account
from omni_server.cloned_voices import ClonedVoices
from omni_server.door import Offer, Responder
from omni_server.drain import Drain
from omni_server.errors import OmniError
from omni_server.measures import Measures
from omni_server.quotas import Account
from omni_server.types import (
    AudioDelta,
    AudioPart,
    Done,
    Event,
    ImagePart,
    ImageReady,
    MediaSource,
    ReasoningDelta,
    Request,
    Speech,
    TextDelta,
)


class Metered:
    """A Responder around a Responder. Work that has no caller passes through."""

    def __init__(self, pipeline: Responder) -> None:
        self._pipeline = pipeline

    @property
    def checkpoint(self) -> Offer:
        return self._pipeline.checkpoint

    @property
    def measures(self) -> Measures:
        return self._pipeline.measures

    @property
    def drain(self) -> Drain:
        return self._pipeline.drain

    @property
    def cloned(self) -> ClonedVoices:
        return self._pipeline.cloned

    @asynccontextmanager
    async def respond(self, request: Request) -> AsyncIterator[AsyncIterator[Event]]:
        account = current_account()
        if account is None:
            async with self._pipeline.respond(request) as events:
                yield events
            return
        try:
            account.admit(request.modalities)
        except OmniError as error:
            self.measures.rejected(str(error.code))
            raise
        async with self._pipeline.respond(request) as events:
            meter = Meter(events, account)
            try:
                yield meter
            finally:
                meter.settle()

    def check(self, request: Request) -> None:
        self._pipeline.check(request)

    async def prepare(self, part: ImagePart | AudioPart) -> None:
        await self._pipeline.prepare(part)

    async def speech(self, source: MediaSource) -> Speech:
        return await self._pipeline.speech(source)

    async def warm(self, request: Request) -> None:
        await self._pipeline.warm(request)

    async def ready(self) -> dict[str, bool]:
        return await self._pipeline.ready()


class Meter(AsyncIterator[Event]):
    """The events of one reply, counted as they pass."""

    def __init__(self, events: AsyncIterator[Event], account: Account) -> None:
        self._events = events
        self._account = account
        self._pieces = 0
        self._settled = False

    async def __anext__(self) -> Event:
        event = await anext(self._events)
        match event:
            case AudioDelta(samples=samples, sample_rate=rate):
                self._account.use("audio_seconds_per_minute", len(samples) / rate)
            case ImageReady():
                self._account.use("images_per_minute", 1)
            case TextDelta() | ReasoningDelta():
                self._pieces += 1
            case Done(usage=usage):
                self._settled = True
                self._account.use("tokens_per_minute", usage.prompt_tokens + usage.completion_tokens)
            case _:
                pass
        return event

    def settle(self) -> None:
        """A reply that was left before its end has no usage; a piece of text is a token at least."""
        if not self._settled:
            self._account.use("tokens_per_minute", self._pieces)
