"""Events on their way to a client: few may wait, and those that nobody wants any more are taken back."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Generic, TypeVar

Item = TypeVar("Item")
CAPACITY = 64


class Outbox(Generic[Item]):
    """One reader. `put` never waits; who makes much calls `room` before."""

    def __init__(self) -> None:
        self._items: deque[Item] = deque()
        self._wakers: set[asyncio.Future[None]] = set()
        self._closed = False

    def put(self, item: Item) -> None:
        self._items.append(item)
        self._wake()

    async def room(self, capacity: int = CAPACITY) -> None:
        """Waits until fewer than `capacity` wait."""
        while len(self._items) >= capacity:
            await self._change()

    def drop(self, unwanted: Callable[[Item], bool]) -> None:
        self._items = deque(item for item in self._items if not unwanted(item))
        self._wake()

    def close(self) -> None:
        """The reader ends after what waits now."""
        self._closed = True
        self._wake()

    async def items(self) -> AsyncIterator[Item]:
        while True:
            while self._items:
                item = self._items.popleft()
                self._wake()
                yield item
            if self._closed:
                return
            await self._change()

    async def _change(self) -> None:
        waker = asyncio.get_running_loop().create_future()
        self._wakers.add(waker)
        try:
            await waker
        finally:
            self._wakers.discard(waker)

    def _wake(self) -> None:
        for waker in self._wakers:
            if not waker.done():
                waker.set_result(None)
