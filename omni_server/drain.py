"""Steps 1 to 8. The end of the server as its parts see it: nothing new, a time for what is open, a word to who talks."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

from omni_server.call import current_call, in_time
from omni_server.errors import ServerStopping

_log = logging.getLogger(__name__)


class Drain:
    """One for the whole server."""

    def __init__(self) -> None:
        self._since: float | None = None
        self._until: float | None = None  # on the monotonic clock, like `_since`
        self._limits: set[asyncio.Timeout] = set()
        self._listeners: set[Callable[[float], None]] = set()

    @property
    def leaving(self) -> bool:
        return self._since is not None

    def begin(self, seconds: float) -> None:
        """From now on nothing new; what is open has so many seconds. The first time counts."""
        if self.leaving:
            return
        _log.warning("stopping: no new work, and `%g` seconds for what is open", seconds)
        self._since = time.monotonic()
        self._until = self._since + seconds
        for listener in list(self._listeners):
            listener(seconds)
        self._hurry()

    def end(self) -> None:
        """The time is over, whatever was said at the beginning."""
        self.begin(0.0)
        self._until = time.monotonic()
        self._hurry()

    def check(self) -> None:
        """Raises ServerStopping where a call has come too late. Calls that were there before may go on with more."""
        call = current_call()
        if self._since is not None and (call is None or call.began > self._since):
            raise ServerStopping("the server is stopping and takes nothing new", retry_after=self._seconds_left())

    @asynccontextmanager
    async def in_time(self) -> AsyncIterator[None]:
        """What is inside is cancelled when the time is over: the client's, which is DeadlineExceeded, or that of the stopping
        server, which is ServerStopping."""
        try:
            async with in_time(), asyncio.timeout(self._seconds_left()) as limit:
                self._limits.add(limit)
                try:
                    yield
                finally:
                    self._limits.discard(limit)
        except TimeoutError:
            if not limit.expired():
                raise
            raise ServerStopping("the server has stopped before this was done", retry_after=1.0) from None

    @contextmanager
    def told(self, listener: Callable[[float], None]) -> Iterator[None]:
        """Inside, `listener` hears of the end, with the seconds that are left."""
        self._listeners.add(listener)
        try:
            yield
        finally:
            self._listeners.discard(listener)

    def _hurry(self) -> None:
        left = self._seconds_left()
        if left is not None:
            until = asyncio.get_running_loop().time() + left
            for limit in list(self._limits):
                limit.reschedule(until)

    def _seconds_left(self) -> float | None:
        return None if self._until is None else max(0.0, self._until - time.monotonic())
