"""omni_server/vad.py: the networks that listen are few, are kept, and are never made where somebody waits."""

from __future__ import annotations

import asyncio

import numpy as np

from omni_server import vad
from omni_server.vad import KEPT, WINDOW, SileroEars

SILENCE = np.zeros(WINDOW, np.float32)


async def test_a_network_comes_back_whatever_becomes_of_its_caller() -> None:
    """Would catch 10 MB that are lost with each call that is cancelled while it cleans up."""
    ears = SileroEars()
    loop, entered = asyncio.get_running_loop(), asyncio.Event()

    async def call() -> None:
        stream = ears.open()
        try:
            await ears.lane.run(stream.feed, SILENCE)
            entered.set()
            await asyncio.Event().wait()
        finally:
            ears.close(stream)
            task = asyncio.current_task()
            assert task is not None
            loop.call_soon(task.cancel)  # once more, as a client does that leaves

    for _ in range(2):
        entered.clear()
        task = asyncio.create_task(call())
        await entered.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    await ears.lane.run(lambda: None)
    assert len(ears._free) == 1
    ears.lane.close()


async def test_a_kept_network_has_forgotten_what_it_heard() -> None:
    """Would catch a caller whose first words are judged by the sound of the caller before."""
    ears, noise = SileroEars(), np.random.default_rng(0).uniform(-1, 1, WINDOW).astype(np.float32)
    first, heard = ears.open(), []
    for window in (SILENCE, noise, noise):
        heard.append(await ears.lane.run(first.feed, window))
    ears.close(first)
    second = ears.open()
    assert await ears.lane.run(second.feed, SILENCE) == heard[0]
    ears.lane.close()


async def test_a_crowd_leaves_no_more_networks_than_are_kept() -> None:
    """Would catch a busy hour whose hundred networks, 10 MB each, stay for ever."""
    ears = SileroEars()
    network = vad.SileroVAD(vad.SAMPLE_RATE)
    for _ in range(KEPT + 3):
        stream = ears.open()
        stream.network = network  # one is enough: what is counted is how many are kept
        ears.close(stream)
    await ears.lane.run(lambda: None)
    assert len(ears._free) == KEPT
    ears.lane.close()
