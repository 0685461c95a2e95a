"""Eight pictures at once against diffusers' own loop, one by one: what batching, caching and compilation give, apart.

    python -m bench.image_decoder

Two networks: the embedded checkpoint, where calls cost more than arithmetic, and the published structure at middle size with
random weights, where arithmetic decides; that one in both precisions. Each ratio is of rounds run side by side.
"""

from __future__ import annotations

import json
import shutil
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler
from torch import Tensor
from torch.nn import functional

from decoders.image import step_network
from decoders.image.step_batcher import Drawing, Place, StepBatcher
from decoders.image.token_diffusion import TokenDiffusionPipeline
from decoders.image.transformer import VisionTokenEmbedder, VisionTransformer

EMBEDDED = Path(__file__).parent.parent / "omni_server" / "embedded" / "image_decoder"
PICTURES = 8


@dataclass(frozen=True, slots=True)
class Case:
    """A pipeline and eight wishes of one size and one number of steps, which the plain loop can batch too."""

    name: str
    pipeline: TokenDiffusionPipeline
    drawings: list[Drawing]
    rounds: int
    compiled: bool


def show(line: str) -> None:
    print(line, flush=True)


def drawings(pipeline: TokenDiffusionPipeline, size: tuple[int, int], steps: int) -> list[Drawing]:
    embedder, random = pipeline.token_embedder.config, torch.Generator().manual_seed(0)
    wishes = []
    for _ in range(PICTURES):
        codes = torch.randint(embedder.vocab_size, (1, embedder.token_length), generator=random)
        noise = pipeline.noise(1, size, random)[0].flatten(1).t()
        wishes.append(Drawing(codes, size, noise, steps))
    return wishes


def embedded(steps: int) -> Case:
    pipeline = TokenDiffusionPipeline.from_folder(EMBEDDED)
    side = int(json.loads((EMBEDDED / "decoder.json").read_text(encoding="utf-8"))["pixels"] ** 0.5) // pipeline.scale_factor
    return Case(f"embedded, {steps} steps", pipeline, drawings(pipeline, (side, side), steps), 5, steps > 1)


def middle(dtype: torch.dtype, rounds: int, steps: int = 3) -> Case:
    """The published structure at 0.4 of its width and 0.3 of its depth; 16 x 16 latents."""
    torch.manual_seed(0)
    transformer = VisionTransformer(16, None, 256, 256, 768, 4.0, 12, 0, 10, [8, 28, 28]).to(dtype).eval()
    vae = AutoencoderKL(
        down_block_types=["DownEncoderBlock2D"] * 4,
        up_block_types=["UpDecoderBlock2D"] * 4,
        block_out_channels=[16, 32, 64, 64],
        latent_channels=16,
        norm_num_groups=8,
    ).eval()
    embedder = VisionTokenEmbedder(1024, 256, 729)
    embedder.vocab_embeddings.normal_()
    pipeline = TokenDiffusionPipeline(transformer, vae, embedder, FlowMatchEulerDiscreteScheduler())
    millions = sum(weight.numel() for weight in transformer.parameters()) / 1e6
    name = f"middle, {millions:.0f} M, {str(dtype).removeprefix('torch.')}, {steps} steps"
    return Case(name, pipeline, drawings(pipeline, (16, 16), steps), rounds, dtype is torch.float32)


def loop(pipeline: TokenDiffusionPipeline, wishes: list[Drawing]) -> list[Tensor]:
    """diffusers' way: one call, with the batch that is given, from noise to pixels."""
    first = wishes[0]
    latents = torch.stack([wish.noise.t().unflatten(-1, wish.size) for wish in wishes])
    height, width = (side * pipeline.scale_factor for side in first.size)
    codes = torch.cat([wish.codes for wish in wishes])
    return list(pipeline(codes, height, width, first.steps, latents=latents))


def one_by_one(case: Case) -> list[Tensor]:
    return [loop(case.pipeline, [wish])[0] for wish in case.drawings]


def together(batcher: StepBatcher, wishes: list[Drawing]) -> list[Tensor]:
    places = [batcher.join(wish) for wish in wishes]
    while not all(place.over for place in places):
        batcher.advance()
    return [drawn(place) for place in places]


def drawn(place: Place) -> Tensor:
    if place.fault is not None:
        raise place.fault
    pixels = place.news[-1].pixels
    assert pixels is not None
    return pixels


def seconds(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def compare(case: Case) -> None:
    """Every way beside the plain loop, in the same round; the median of the rounds' ratios."""
    alone, batched = StepBatcher(case.pipeline, slots=1), StepBatcher(case.pipeline, slots=PICTURES)
    ways: dict[str, Callable[[], list[Tensor]]] = {
        "batching alone (one call for all)": lambda: loop(case.pipeline, case.drawings),
        "caching alone (one slot)": lambda: together(alone, case.drawings),
        "caching and batching (what is served)": lambda: together(batched, case.drawings),
        "the same, compiled": lambda: compiled(lambda: together(batched, case.drawings)),
    }
    expected = one_by_one(case)
    tiles = batched._tiles_of(0, case.drawings[0].size)
    show(f"\n{case.name}: {PICTURES} pictures of {expected[0].shape[2]} x {expected[0].shape[1]}, {tiles[0]} to a product")
    if not case.compiled or shutil.which("g++") is None:
        del ways["the same, compiled"]
    else:
        show(f"  compiling took {seconds(ways['the same, compiled']):.1f} s")
    results = {name: way() for name, way in ways.items()}
    times: dict[str, list[float]] = {name: [] for name in ("loop", *ways)}
    for _ in range(case.rounds):
        times["loop"].append(seconds(lambda: one_by_one(case)))
        for name, way in ways.items():
            times[name].append(seconds(way))
    show(f"  diffusers' loop, one by one: {PICTURES / median(times['loop']):.2f} pictures/s, ratio 1")
    for name in ways:
        ratio = median(base / own for base, own in zip(times["loop"], times[name], strict=True))
        error = max((a - b).abs().max().item() for a, b in zip(results[name], expected, strict=True))
        show(f"  {name}: {ratio:.2f} (largest difference of a pixel in -1..1: {error:.1e})")
    served = results["caching and batching (what is served)"]
    same = all(torch.equal(a, together(alone, [wish])[0]) for a, wish in zip(served, case.drawings, strict=True))
    show(f"  bit for bit what each is alone: {same}")


def compiled(work: Callable[[], list[Tensor]]) -> list[Tensor]:
    plain = step_network.mix
    step_network.mix = COMPILED_MIX
    try:
        return work()
    finally:
        step_network.mix = plain


COMPILED_MIX = torch.compile(step_network.mix, dynamic=False)


def peaks() -> None:
    """What this machine can do at best: a product of 512 rows in each precision, and copying."""
    weights, rows = torch.randn(3072, 3072), torch.randn(512, 3072)
    for dtype in (torch.float32, torch.bfloat16):
        w, x = weights.to(dtype), rows.to(dtype)
        best = min(seconds(lambda w=w, x=x: functional.linear(x, w)) for _ in range(20))
        show(f"peak, {str(dtype).removeprefix('torch.')} product: {2 * w.numel() * len(x) / best / 1e9:.0f} GFLOP/s")
    source, target = torch.zeros(1 << 24), torch.zeros(1 << 24)
    best = min(seconds(lambda: target.copy_(source)) for _ in range(10))
    show(f"peak, copying: {2 * source.numel() * 4 / best / 1e9:.0f} GB/s read and written")


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # torch's own, while it compiles
    with torch.inference_mode():
        show(f"{torch.get_num_threads()} threads")
        peaks()
        for case in (embedded(1), embedded(8), middle(torch.float32, 1), middle(torch.bfloat16, 3)):
            compare(case)
