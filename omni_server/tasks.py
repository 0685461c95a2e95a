"""Tasks that end with what they belong to, and whose faults are heard of. Knows nothing of what they do."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from contextlib import suppress

_log = logging.getLogger(__name__)


async def side_by_side(*work: Coroutine[None, None, None], until: str) -> list[bool]:
    """Ends with the first that ends, or that fails (`until` as for `asyncio.wait`); raises its fault and cancels the others.
    Returns which of them had ended by themselves.

    A fault knows every frame that it came through. The tasks, which know their faults, must not be kept in one of them: such
    a ring, and all that its frames worked with, stays until the collector comes, which may be never.
    """
    tasks = [asyncio.create_task(each) for each in work]
    faults: list[BaseException] = []
    try:
        await asyncio.wait(tasks, return_when=until)
        ended = [task.done() for task in tasks]
        faults += [fault for fault in map(_fault_of, tasks) if fault is not None]
    finally:
        for place in range(len(tasks)):
            tasks[place].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        tasks.clear()
    if faults:
        raise faults.pop(0)
    return ended


def _fault_of(task: asyncio.Task[None]) -> BaseException | None:
    return task.exception() if task.done() and not task.cancelled() else None


class Tasks:
    """`settled` is called whenever one has ended."""

    def __init__(self, settled: Callable[[], None]) -> None:
        self._settled = settled
        self._running: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._running)

    def start(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._ended)
        return task

    async def close(self) -> None:
        """Cancels all and waits until each has cleaned up. `settled` is called no more: what it belongs to may go."""
        running = list(self._running)
        for task in running:
            task.cancel()
        try:
            await asyncio.gather(*running, return_exceptions=True)
        finally:
            self._settled = lambda: None

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        # A cancelled task keeps its frames, and so whoever keeps the task, until it is asked for its fault.
        with suppress(asyncio.CancelledError):
            if (fault := task.exception()) is not None:
                _log.error("a task of a live conversation failed", exc_info=fault)
        self._settled()
