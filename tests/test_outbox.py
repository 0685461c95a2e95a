"""Events on their way to a slow client, and tasks that end with their call."""

from __future__ import annotations

import asyncio

from omni_server.outbox import CAPACITY, Outbox
from omni_server.tasks import Tasks


async def test_who_makes_much_waits_for_who_reads_slowly() -> None:
    """Would catch a queue that grows for as long as a client does not read."""
    outbox: Outbox[int] = Outbox()
    made = 0

    async def make() -> None:
        nonlocal made
        while True:
            await outbox.room()
            outbox.put(made)
            made += 1

    making = asyncio.create_task(make())
    await asyncio.sleep(0.01)
    assert made == CAPACITY
    items = outbox.items()
    assert [await anext(items) for _ in range(3)] == [0, 1, 2]
    await asyncio.sleep(0.01)
    assert made == CAPACITY + 3
    making.cancel()


async def test_what_nobody_wants_any_more_is_taken_back() -> None:
    """Would catch queued sound that is sent after its answer was interrupted."""
    outbox: Outbox[int] = Outbox()
    for number in range(6):
        outbox.put(number)
    outbox.drop(lambda number: number % 2 == 1)
    outbox.close()
    assert [number async for number in outbox.items()] == [0, 2, 4]


async def test_tasks_end_together_and_each_end_is_told() -> None:
    """Would catch a task that outlives its call, or a call that never learns that its work is over."""
    ends = 0

    def settled() -> None:
        nonlocal ends
        ends += 1

    tasks, cleaned = Tasks(settled), []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            cleaned.append(True)

    for _ in range(3):
        tasks.start(work())
    await asyncio.sleep(0)
    await tasks.close()
    assert (len(cleaned), ends, len(tasks)) == (3, 3, 0)
