"""revival.py and backoff.py on backbones that die, hang or do not start: who is told what, and that it serves again."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from omni_server.backoff import Backoff
from omni_server.errors import EngineUnavailable
from omni_server.interfaces import Backbone
from omni_server.revival import Revival
from omni_server.types import Modality, Prompt, Sampling, TokenChunk
from tests.doubles import MortalBackbone, ScriptedBackbone

TEXT = frozenset({Modality.TEXT})


def stream(backbone: Backbone) -> Any:
    return backbone.stream("r1", Prompt((1,)), Sampling(), TEXT)


def built_from(*steps: Any) -> Callable[[], Backbone]:
    """Builds what stands next in `steps`; an exception there is raised."""
    coming: Iterator[Any] = iter(steps)

    def build() -> Backbone:
        step = next(coming)
        if isinstance(step, Exception):
            raise step
        backbone: Backbone = step
        return backbone

    return build


@asynccontextmanager
async def reviving(*steps: Any, stall_seconds: float = 60.0) -> AsyncIterator[Revival]:
    revival = Revival(built_from(*steps), stall_seconds, Backoff(first=0.01))
    try:
        async with asyncio.timeout(20):
            yield revival
    finally:
        await revival.close()


async def until(true: Callable[[], bool]) -> None:
    while not true():
        await asyncio.sleep(0.01)


async def test_a_dead_backbone_is_told_and_replaced() -> None:
    """Would catch a request that waits for ever on a dead engine, one that is not told when to come back, and a server that
    needs a human to serve again."""
    first, second = MortalBackbone(), MortalBackbone()
    async with reviving(first, second) as revival:
        open_streams = [stream(revival) for _ in range(3)]
        for one in open_streams:
            await anext(one)
        first.kill()
        for one in open_streams:
            with pytest.raises(EngineUnavailable) as told:
                await anext(one)
            assert told.value.retry_after is not None and told.value.retry_after >= 1
        await until(lambda: revival.revived == 1)
        assert first.closed and revival.living is second
        assert await anext(stream(revival)) == TokenChunk((104,))


async def test_a_death_that_nobody_sees_is_found() -> None:
    """Would catch an engine that dies in a quiet hour and stays dead until the first request has failed."""
    first, second = MortalBackbone(), MortalBackbone()
    async with reviving(first, second) as revival:
        first.kill()
        await until(lambda: revival.revived == 1)
        await revival.check()


async def test_a_backbone_that_hangs_is_given_up() -> None:
    """Would catch requests that hang as long as the engine does: nothing in it ever tells."""
    first, second = MortalBackbone(), MortalBackbone()
    async with reviving(first, second, stall_seconds=0.1) as revival:
        waiting = stream(revival)
        await anext(waiting)
        first.hung = True
        with pytest.raises(EngineUnavailable):
            while True:
                await anext(waiting)
        await until(lambda: revival.revived == 1)
        assert first.closed


async def test_a_reader_that_takes_its_time_is_no_hang() -> None:
    """Would catch a healthy engine that is killed under all others because one client reads slowly."""
    async with reviving(MortalBackbone(), stall_seconds=0.3) as revival:
        slow = stream(revival)
        await anext(slow)
        await asyncio.sleep(1.0)
        await anext(slow)
        assert revival.revived == 0


async def test_a_request_that_fails_alone_kills_nobody() -> None:
    """Would catch one bad request that restarts the engine under everybody else."""
    alone = ScriptedBackbone(EngineUnavailable("the engine failed in this request"))
    async with reviving(alone) as revival:
        with pytest.raises(EngineUnavailable) as told:
            await anext(stream(revival))
        assert told.value.retry_after is None
        await until(lambda: not revival._suspected.is_set())
        assert revival.living is alone


async def test_a_start_that_fails_is_tried_again() -> None:
    """Would catch a server that gives up after one start that failed, for want of memory or a busy device."""
    last = MortalBackbone()
    first = MortalBackbone()
    async with reviving(first, RuntimeError("no memory"), EngineUnavailable("still none"), last) as revival:
        first.kill()
        await until(lambda: revival.revived == 1)
        assert revival.living is last


async def test_what_can_never_start_is_refused() -> None:
    """Would catch a server that comes up, serves nothing and retries for ever a checkpoint that cannot run."""
    with pytest.raises(EngineUnavailable):
        Revival(built_from(EngineUnavailable("no such architecture")), 60.0, Backoff())


async def test_while_it_is_away_requests_are_refused_at_once() -> None:
    """Would catch requests that pile up behind a start of minutes, and a server that cannot be stopped during one."""
    gate, first = threading.Event(), MortalBackbone()
    backbones: Iterator[Backbone] = iter((first, MortalBackbone()))

    def build() -> Backbone:
        backbone = next(backbones)
        assert backbone is first or gate.wait(20)
        return backbone

    revival = Revival(build, 60.0, Backoff())
    first.kill()
    await until(lambda: first.closed)
    for refused in (anext(stream(revival)), revival.check()):
        with pytest.raises(EngineUnavailable) as told:
            await refused
        assert told.value.retry_after is not None
    await revival.close()
    gate.set()


def test_waits_grow_and_are_forgotten() -> None:
    """Would catch an engine that dies at every start and is started in a tight loop, or one bad hour that slows down the
    next restart of the year."""
    backoff = Backoff(first=1, most=10, calm=60)
    assert [backoff.failed(3.0) for _ in range(6)] == [0, 1, 2, 4, 8, 10]
    assert backoff.failed(61.0) == 0
