"""Pictures that advance together: each is what it would be alone, whoever comes, goes or fails beside it."""

import random
import threading
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from decoders.image.image import DecodeOptions, ImageDecoder
from decoders.image.step_batcher import Drawing, Place, StepBatcher
from decoders.image.token_diffusion import TokenDiffusionPipeline
from tests.decoders.image.test_token_diffusion import read_golden, write_folder
from tests.decoders.image.tiny_decoder import CODES, tiny_decoder

SIZES = ((4, 4), (2, 5), (5, 2), (1, 16), (3, 3))
DECODER = tiny_decoder()


def drawing(seed: int, size: tuple[int, int] = (4, 4), steps: int = 3, guidance: float = 0.0) -> Drawing:
    chooser = torch.Generator().manual_seed(seed)
    codes = torch.randint(16, (1, 9), generator=chooser)
    return Drawing(codes, size, torch.randn(size[0] * size[1], 4, generator=chooser), steps, guidance)


def pixels_of(place: Place) -> Tensor:
    assert place.fault is None and place.drawn
    pixels = place.news[-1].pixels
    assert pixels is not None
    return pixels


def run(batcher: StepBatcher, *places: Place) -> None:
    while not all(place.over for place in places):
        batcher.advance()


@cache
def alone(seed: int, size: tuple[int, int], steps: int, guidance: float) -> Tensor:
    batcher = StepBatcher(DECODER.pipeline)
    place = batcher.join(drawing(seed, size, steps, guidance))
    run(batcher, place)
    return pixels_of(place)


@pytest.mark.parametrize("name", ["image_decoder_plain", "image_decoder_autoguidance"])
def test_golden_in_company(name: str, tmp_path: Path) -> None:
    """A hoisted part that is not what the network computes, or a neighbour's step, codes or guidance in its place."""
    config, tensors = read_golden(name)
    pipeline = TokenDiffusionPipeline.from_folder(write_folder(tmp_path, config, tensors))
    call, latents = config["call"], tensors["io.initial_latents"]
    batcher = StepBatcher(pipeline)
    size = (latents.shape[2], latents.shape[3])
    noise = latents[0].flatten(1).t()
    codes = tensors["io.tokens"][None]
    batcher.join(Drawing(codes.flip(-1), size, noise.flip(0), 4, 1.5))
    batcher.advance()
    place = batcher.join(Drawing(codes, size, noise, call["num_inference_steps"], call["guidance_scale"]))
    batcher.join(Drawing(codes.flip(-1), (size[1], size[0]), noise.flip(0), 9))
    run(batcher, place)
    torch.testing.assert_close(pixels_of(place)[None], tensors["io.image"], atol=1e-3, rtol=0)


@pytest.mark.parametrize("mix", range(200))
def test_company_changes_no_bit(mix: int) -> None:
    """A picture that depends on who is drawn beside it, when it joined, or who left: sums in another order are enough."""
    chooser = random.Random(mix)
    batcher = StepBatcher(DECODER.pipeline, slots=chooser.choice((2, 4, 8)))
    sizes = chooser.sample(SIZES, chooser.randint(1, 2))  # few sizes, so that some pictures share products
    wishes = [
        (chooser.randrange(6), chooser.choice(sizes), chooser.randint(1, 4), chooser.choice((0.0, 0.0, 0.75, 2.0)))
        for _ in range(chooser.randint(2, 10))
    ]
    places: list[Place] = []
    leaving: list[Place] = []
    for wish in wishes:
        places.append(batcher.join(drawing(*wish)))
        for _ in range(chooser.choice((0, 0, 1, 2))):
            batcher.advance()
        if chooser.random() < 0.2:
            leaving.append(chooser.choice(places))
            leaving[-1].left = True
    run(batcher, *places)
    for place, wish in zip(places, wishes, strict=True):
        if place not in leaving:
            assert torch.equal(pixels_of(place), alone(*wish)), wish
    assert batcher.running == 0


def test_alone_is_what_the_plain_loop_draws() -> None:
    """A batcher that agrees with itself and not with the pipeline."""
    wish = drawing(1, (2, 5), 4, 0.75)
    latents = wish.noise.t().unflatten(-1, wish.size)[None]
    plain = DECODER.pipeline(wish.codes, 16, 40, 4, 0.75, latents=latents)[0]
    torch.testing.assert_close(alone(1, (2, 5), 4, 0.75), plain, atol=1e-5, rtol=0)


def test_products_are_shared_where_nothing_changes() -> None:
    """Company independence by never batching: of some size, this machine gives the same bits for several at once."""
    batcher = StepBatcher(DECODER.pipeline)
    assert any(batcher._tiles_of(0, size)[0] > 1 for size in SIZES)
    assert all(batcher._tiles_of(0, size)[-1] == 1 for size in SIZES)


def test_newcomer_joins_at_the_next_step() -> None:
    """A picture that waits until those before it are finished."""
    batcher = StepBatcher(DECODER.pipeline)
    first = batcher.join(drawing(1, steps=5))
    batcher.advance()
    second = batcher.join(drawing(2, steps=2))
    batcher.advance()
    assert (first.news[-1].step, second.news[-1].step) == (2, 1)
    batcher.advance()
    assert second.drawn and not first.drawn


def test_leaving_frees_the_slot_at_the_next_step() -> None:
    """Pictures drawn for nobody, while others wait for their slots."""
    batcher = StepBatcher(DECODER.pipeline, slots=2)
    first, second, third = (batcher.join(drawing(seed, steps=4)) for seed in (1, 2, 3))
    batcher.advance()
    assert (batcher.running, len(third.news)) == (2, 0)
    second.left = True
    batcher.advance()
    assert (batcher.running, len(first.news), len(second.news), len(third.news)) == (2, 2, 1, 1)
    run(batcher, first, third)
    assert torch.equal(pixels_of(first), alone(1, (4, 4), 4, 0.0))
    assert torch.equal(pixels_of(third), alone(3, (4, 4), 4, 0.0))


def test_one_that_fails_fails_alone() -> None:
    """A fault of one picture that ends the others, or that leaves its owner waiting for ever."""
    batcher = StepBatcher(DECODER.pipeline)
    good = batcher.join(drawing(1))
    bad = batcher.join(Drawing(torch.full((1, 9), 99), (4, 4), torch.zeros(16, 4), 3))  # no such code
    run(batcher, good, bad)
    assert isinstance(bad.fault, IndexError)
    assert torch.equal(pixels_of(good), alone(1, (4, 4), 3, 0.0))


def test_spans_advance_together_from_any_thread() -> None:
    """A step taken twice, or news that reaches another span, where two threads draw with one decoder."""
    decoder = tiny_decoder()
    expected = [_drawn(tiny_decoder(), seed) for seed in range(6)]
    drawn: dict[int, bytes] = {}

    def draw(seed: int) -> None:
        drawn[seed] = _drawn(decoder, seed)

    threads = [threading.Thread(target=draw, args=[seed]) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [drawn[seed] for seed in range(6)] == expected


def _drawn(decoder: ImageDecoder, seed: int) -> bytes:
    span = decoder.open(DecodeOptions(seed=seed, steps=5))
    span.feed(CODES)
    [picture] = span.finish()
    return picture.tobytes()


def test_news_are_taken_before_another_step_is() -> None:
    """A step for each picture that asks: three spans would run three times as fast as their readers."""
    decoder = tiny_decoder()
    spans: list[Any] = [decoder.open(DecodeOptions(seed=seed, steps=9)) for seed in range(3)]
    for span in spans:
        span.feed(CODES)
    heard = [[[progress.step for progress in span.advance()] for span in spans] for _ in range(4)]
    # The first call of each lets it join, so the earlier ones are ahead by that much and no more.
    assert heard[0] == [[1], [1], [1]]
    assert heard[1:] == [[[2, 3], [2], [2]], [[4], [3], [3]], [[5], [4], [4]]]
