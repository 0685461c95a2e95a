"""breaker.py, maker.py and senses.py: a model that fails, hangs or makes nonsense: what is told, and how it comes back."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch

from omni_server.breaker import Breaker
from omni_server.errors import EncodeFailed, ModalityDown, RequestError
from omni_server.lanes import Lane
from omni_server.maker import Maker
from omni_server.senses import Sense
from omni_server.types import DecodeOptions, Modality, Picture
from tests.doubles import FaultyDecoder


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not true():
            await asyncio.sleep(0.01)


class Model:
    """Works, fails or hangs; counts its probes."""

    def __init__(self, seconds: float = 60.0) -> None:
        self.broken = False
        self.gate: threading.Event | None = None
        self.probes: list[bool] = []
        self.breaker = Breaker("making `audio`", Lane("model", seconds=seconds), self.probe)

    def work(self, fault: Exception | None = None) -> str:
        if self.gate is not None:
            self.gate.wait(20)
        if fault is not None or self.broken:
            raise fault or RuntimeError("broken")
        return "worked"

    def probe(self, hung: bool) -> None:
        self.probes.append(hung)
        self.work()


@pytest.fixture
async def model() -> AsyncIterator[Model]:
    model = Model(seconds=0.2)
    yield model
    model.breaker.close()


async def test_one_bad_request_takes_nothing_from_the_others(model: Model) -> None:
    """Would catch a modality that is shut for everybody because one request's codes could not be decoded."""
    with pytest.raises(ValueError, match="poison"):
        await model.breaker.run(model.work, ValueError("poison"))
    assert await model.breaker.run(model.work) == "worked"
    await until(lambda: model.probes == [False])
    assert model.breaker.up


async def test_a_fault_of_the_request_is_not_even_probed(model: Model) -> None:
    """Would catch a probe for each wrong request, which anybody could use to keep a model busy."""
    with pytest.raises(RequestError):
        await model.breaker.run(model.work, RequestError("wrong"))
    assert model.breaker._examiner is None


async def test_a_broken_model_is_down_until_a_probe_works(model: Model) -> None:
    """Would catch a broken model that fails every request slowly, health that does not fall, or that never rises again."""
    model.broken = True
    with pytest.raises(RuntimeError):
        await model.breaker.run(model.work)
    await until(lambda: not model.breaker.up)
    with pytest.raises(ModalityDown) as told:
        await model.breaker.run(model.work)
    assert told.value.retry_after is not None and told.value.retry_after >= 1
    model.broken = False
    await until(lambda: model.breaker.up)
    assert await model.breaker.run(model.work) == "worked"


async def test_a_hung_model_is_down_at_once(model: Model) -> None:
    """Would catch requests that each wait out the limit behind a model that hangs."""
    model.gate = threading.Event()
    with pytest.raises(ModalityDown):
        await model.breaker.run(model.work)
    assert not model.breaker.up
    model.gate.set()
    await until(lambda: model.breaker.up)
    assert model.probes[0] is True


async def test_a_vocoder_that_hung_is_loaded_anew() -> None:
    """Would catch a probe of the very decoder whose lock the hung thread holds: the voice would never come back."""
    hung, fresh = FaultyDecoder(Modality.AUDIO), FaultyDecoder(Modality.AUDIO)
    hung.hold = threading.Event()
    maker = Maker(Modality.AUDIO, hung, load=lambda: fresh, seconds=0.2)
    span = await maker.open(DecodeOptions())
    with pytest.raises(ModalityDown):
        await maker.made(span.feed, [1])
    await until(lambda: maker.breaker.up)
    assert await maker.open(DecodeOptions()) is fresh
    hung.hold.set()
    maker.breaker.close()


async def test_sound_that_is_no_sound_is_a_fault() -> None:
    """Would catch noise at full volume, or a JSON that no client can read, where a network has made NaN."""
    decoder = FaultyDecoder(Modality.AUDIO)
    decoder.output = [np.array([0.1, np.nan])]
    maker = Maker(Modality.AUDIO, decoder)
    with pytest.raises(ValueError, match="not numbers"):
        await maker.made(decoder.feed, [1])
    await until(lambda: not maker.breaker.up)
    decoder.output = None
    await until(lambda: maker.breaker.up)
    maker.breaker.close()


class Eye:
    """An encoder and a codebook whose outputs can be spoilt."""

    size = 10

    def __init__(self, embeddings: Any, codes: list[int]) -> None:
        self.embeddings, self.codes, self.turn = embeddings, codes, 0

    def encode(self, media: PIL.Image.Image) -> Any:
        self.turn += 1
        return self.embeddings if self.turn % 2 else self.codes


@pytest.mark.parametrize(
    ("embeddings", "codes"),
    [
        (torch.full((2, 8), torch.nan), [0]),
        (torch.zeros(0, 8), [0]),
        (torch.zeros(8), [0]),
        (torch.zeros(2, 8), [10]),
        (torch.zeros(2, 8), [-1]),
    ],
)
async def test_nonsense_of_an_encoder_is_told_and_not_remembered(embeddings: Any, codes: list[int]) -> None:
    """Would catch NaN that reach the engine, where they spoil the cache of every later request with the same picture."""
    eye: Any = Eye(embeddings, codes)
    sense = Sense(Modality.IMAGE, eye, eye)
    picture = Picture(PIL.Image.new("RGB", (8, 8)), "digest")
    with pytest.raises(EncodeFailed):
        await sense.encode(picture)
    await until(lambda: not sense.breaker.up)
    with pytest.raises(ModalityDown):
        await sense.encode(picture)
    eye.embeddings, eye.codes, eye.turn = torch.zeros(2, 8), [0], 0
    await until(lambda: sense.breaker.up)
    assert (await sense.encode(picture)).codes == (0,)
    sense.breaker.close()
