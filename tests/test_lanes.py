"""lanes.py: what is run where, in which order, and what becomes of a call that never comes back."""

from __future__ import annotations

import asyncio
import threading
from contextvars import ContextVar

import pytest

from omni_server.breaker import Breaker
from omni_server.errors import OutOfMemory, Stalled
from omni_server.lanes import Lane

ASKED: ContextVar[str] = ContextVar("ASKED", default="")


async def test_calls_run_in_order_off_the_loop_with_their_context() -> None:
    """Would catch a model on the event loop, units of one voice in the wrong order, or a log line without its request."""
    lane, seen = Lane("test"), []
    ASKED.set("mine")

    def call(number: int) -> int:
        seen.append((number, ASKED.get(), threading.current_thread() is threading.main_thread()))
        return number

    assert await asyncio.gather(*(lane.run(call, number) for number in range(5))) == list(range(5))
    assert seen == [(number, "mine", False) for number in range(5)]
    lane.close()


@pytest.mark.parametrize("fault", [ValueError("bad"), StopIteration()])
async def test_a_fault_is_raised_where_it_is_waited_for(fault: Exception) -> None:
    """Would catch a fault that ends the thread of the lane, after which nobody is served, or one that is swallowed."""
    lane = Lane("test")

    def call() -> None:
        raise fault

    with pytest.raises((type(fault), RuntimeError)):
        await asyncio.wait_for(lane.run(call), 10)
    assert await asyncio.wait_for(lane.run(lambda: 1), 10) == 1
    lane.close()


class OutOfMemoryError(RuntimeError):
    """Named as torch names its own, which no machine without such a device can be made to raise."""


@pytest.mark.parametrize(
    "fault", [MemoryError(), OutOfMemoryError("CUDA"), RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes")]
)
async def test_no_memory_is_told_as_such(fault: Exception) -> None:
    """Would catch a request that was too large for this moment and is told as a fault of the server, or takes a modality
    down: the next one may well find memory."""
    lane = Lane("test")

    def call() -> None:
        raise fault

    breaker = Breaker("making `audio`", lane, lambda hung: None)
    with pytest.raises(OutOfMemory):
        await asyncio.wait_for(breaker.run(call), 10)
    assert breaker.up and await breaker.run(lambda: 1) == 1
    breaker.close()


async def test_a_call_that_hangs_is_given_up_and_the_lane_goes_on() -> None:
    """Would catch one hung call that holds all later ones for ever, a thread that comes back and takes a second place in the
    lane, or a call that is given up for the time that it had to queue."""
    lane, gate, entered = Lane("test", seconds=0.2), threading.Event(), threading.Event()

    def hang() -> None:
        entered.set()
        gate.wait(20)

    hung, behind = asyncio.create_task(lane.run(hang)), asyncio.create_task(lane.run(lambda: "served"))
    with pytest.raises(Stalled):
        await asyncio.wait_for(hung, 10)
    assert entered.is_set()
    assert await asyncio.wait_for(behind, 10) == "served"
    assert lane.lost == 1
    gate.set()
    while lane.lost:
        await asyncio.sleep(0.01)
    assert await lane.run(lambda: "still") == "still"
    assert len(lane._threads) == 1
    lane.close()


async def test_a_hung_call_whose_caller_has_left_is_given_up_too() -> None:
    """Would catch a lane that stays blocked because the client of the hung call was cancelled before the limit."""
    lane, gate, entered = Lane("test", seconds=0.2), threading.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def hang() -> None:
        loop.call_soon_threadsafe(entered.set)
        gate.wait(20)

    leaving = asyncio.create_task(lane.run(hang))
    await entered.wait()
    leaving.cancel()
    assert await asyncio.wait_for(lane.run(lambda: "served"), 10) == "served"
    gate.set()
    lane.close()


async def test_what_is_posted_is_done_in_its_turn_though_its_caller_has_left() -> None:
    """Would catch clean-up that is undone with the call that asked for it, or that overtakes the work before it."""
    lane, gate, done = Lane("test"), threading.Event(), []

    async def leave() -> None:
        working = asyncio.create_task(lane.run(lambda: done.append(gate.wait(20))))
        await asyncio.sleep(0)
        lane.post(done.append, "posted")
        working.cancel()

    await leave()
    gate.set()
    await asyncio.wait_for(lane.run(lambda: None), 10)
    assert done == [True, "posted"]
    lane.close()
    lane.post(done.append, "too late")


async def test_a_closed_lane_cancels_what_waits_and_lets_go() -> None:
    """Would catch a server that cannot stop while something waits for a model, or threads that outlive it."""
    lane, gate = Lane("test"), threading.Event()
    working, waiting = asyncio.create_task(lane.run(gate.wait, 20)), asyncio.create_task(lane.run(lambda: None))
    await asyncio.sleep(0)
    lane.close()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    gate.set()
    assert await working
    await asyncio.to_thread(lane.join, 10)
    assert not [thread for thread in lane._threads if thread.is_alive()]
    with pytest.raises(RuntimeError):
        await lane.run(lambda: None)
