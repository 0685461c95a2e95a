"""Step 5. A backbone that owns another one, and builds it anew when it has died or hangs. Knows no engine by name."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress

from omni_server.backoff import Backoff
from omni_server.errors import EngineUnavailable
from omni_server.interfaces import Backbone
from omni_server.lanes import Lane
from omni_server.types import Modality, Prompt, Sampling, TokenChunk

_log = logging.getLogger(__name__)

LOOK_SECONDS = 0.25  # between two looks at a backbone of which nobody asks anything
CLOSE_SECONDS = 30.0  # that a dead one may take to let go of what it holds


class Revival:
    """A Backbone. While the one inside is away, requests are refused at once and told when it should be back."""

    def __init__(self, build: Callable[[], Backbone], stall_seconds: float, backoff: Backoff) -> None:
        """Builds the first one here, so that what can never start is refused. `stall_seconds`: how long all requests together
        may wait for one token before the backbone counts as hung."""
        self._build, self._stall_seconds, self._backoff = build, stall_seconds, backoff
        self._clock = asyncio.get_running_loop().time
        self._lane = Lane("engine")
        self._suspected = asyncio.Event()
        self._waiting = 0  # streams that wait for their next token
        self._sign = 0.0  # when the backbone last showed life
        self.revived = 0
        began = self._clock()
        self._inner: Backbone | None = build()
        self._born = self._clock()
        self._start_seconds = self._born - began
        self._due = 0.0  # when the next one should serve
        self._keeper = asyncio.create_task(self._keep())

    @property
    def living(self) -> Backbone:
        """The backbone that serves. Raises EngineUnavailable while there is none."""
        if self._inner is None:
            raise self._away()
        return self._inner

    async def stream(
        self, request_id: str, prompt: Prompt, sampling: Sampling, modalities: frozenset[Modality]
    ) -> AsyncGenerator[TokenChunk, None]:
        inner = self.living
        try:
            async with aclosing(inner.stream(request_id, prompt, sampling, modalities)) as chunks:
                while (chunk := await self._next(chunks)) is not None:
                    yield chunk
        except EngineUnavailable as error:
            self._suspected.set()
            if self._inner is not inner or await self._fault(inner) is not None:
                error.retry_after = self._seconds_away()
            raise

    @property
    def cache_tokens(self) -> int:
        return self.living.cache_tokens

    async def check(self) -> None:
        await self.living.check()

    async def close(self) -> None:
        self._keeper.cancel()
        with suppress(asyncio.CancelledError):
            await self._keeper
        self._lane.close()
        if self._inner is not None:
            await self._inner.close()

    async def _next(self, chunks: AsyncGenerator[TokenChunk, None]) -> TokenChunk | None:
        """The next chunk, None at the end. Time that a reader takes between two chunks is not the backbone's."""
        if not self._waiting:
            self._sign = self._clock()
        self._waiting += 1
        try:
            return await anext(chunks, None)
        finally:
            self._waiting -= 1
            self._sign = self._clock()

    async def _keep(self) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS):
                    await self._suspected.wait()
            self._suspected.clear()
            if self._inner is not None and (fault := await self._fault(self._inner)) is not None:
                _log.error("the engine is given up and started again: %s", fault)
                await self._revive(self._inner)

    async def _fault(self, inner: Backbone) -> str | None:
        if self._waiting and self._clock() - self._sign > self._stall_seconds:
            return f"`{self._waiting}` requests have waited `{self._stall_seconds:g}` seconds without a token"
        try:
            await inner.check()
        except Exception as error:  # noqa: BLE001 - an engine that cannot even be asked is as good as dead
            return str(error)
        return None

    async def _revive(self, dead: Backbone) -> None:
        self._inner = None
        wait = self._backoff.failed(self._clock() - self._born)
        self._due = self._clock() + wait + self._start_seconds
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await dead.close()
        except Exception:  # noqa: BLE001 - what is left of a dead engine must not keep the next one from starting
            _log.exception("the engine that was given up did not close")
        while True:
            await asyncio.sleep(wait)
            began = self._clock()
            try:
                self._inner = await self._lane.run(self._build)
            except Exception:  # noqa: BLE001 - whatever keeps an engine from starting, the next try is the only way on
                wait = self._backoff.failed()
                _log.exception("the engine did not start; the next try is in %g seconds", wait)
                self._due = self._clock() + wait + self._start_seconds
            else:
                break
        self._born = self._clock()
        self._start_seconds = self._born - began
        self.revived += 1
        _log.warning("the engine serves again, after %.1f seconds of starting", self._start_seconds)

    def _away(self) -> EngineUnavailable:
        return EngineUnavailable("the engine has stopped and is being started again", retry_after=self._seconds_away())

    def _seconds_away(self) -> float:
        """Until the engine should serve again: what is left of the wait, and of a start as long as the last one."""
        due = self._due if self._inner is None else self._clock() + self._start_seconds
        return max(1.0, due - self._clock())
