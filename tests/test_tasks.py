"""omni_server/tasks.py: what runs side by side ends together, with the fault of the first, and leaves nothing behind."""

from __future__ import annotations

import asyncio

import pytest

from omni_server.tasks import side_by_side
from tests.freed import freed


class Sound:
    """What a task works with."""


async def wait_with(sound: Sound, cleaned: list[str]) -> None:
    try:
        await asyncio.Event().wait()
    finally:
        cleaned.append("cleaned")


async def test_the_first_to_end_ends_the_others() -> None:
    """Would catch a task that goes on for a client that has left, or one that is cut off in its clean-up."""
    cleaned: list[str] = []
    async with asyncio.timeout(10):
        await side_by_side(wait_with(Sound(), cleaned), asyncio.sleep(0), until=asyncio.FIRST_COMPLETED)
    assert cleaned == ["cleaned"]


async def test_a_fault_is_raised_and_keeps_nothing() -> None:
    """Would catch a fault that nobody hears of, and a ring of fault, frame and task that keeps a conversation's sound."""

    async def fail(sound: Sound) -> None:
        await asyncio.sleep(0)
        raise ValueError("bad")

    cleaned: list[str] = []
    async with freed(Sound):
        with pytest.raises(ValueError, match="bad"):
            await side_by_side(wait_with(Sound(), cleaned), fail(Sound()), until=asyncio.FIRST_EXCEPTION)
    assert cleaned == ["cleaned"]


async def test_whoever_waits_and_is_cancelled_cancels_both() -> None:
    """Would catch a conversation that goes on after its call was cancelled, or stays in memory."""
    cleaned: list[str] = []
    async with freed(Sound):
        waiting = asyncio.create_task(
            side_by_side(wait_with(Sound(), cleaned), wait_with(Sound(), cleaned), until=asyncio.FIRST_EXCEPTION)
        )
        await asyncio.sleep(0.01)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        del waiting
    assert cleaned == ["cleaned", "cleaned"]
