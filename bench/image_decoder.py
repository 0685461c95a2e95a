"""Eight pictures at once against diffusers' own loop, one by one: what batching, caching and compilation give, apart.

    python -m bench.image_decoder

Two networks: the embedded checkpoint, where calls cost more than arithmetic, and the published structure at middle size with
random weights, where arithmetic decides; that one in both precisions. Each ratio is of rounds run side by side.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

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
LOOP, SERVED = "diffusers' loop, one by one", "caching and batching (what is served)"
Way = Callable[[list[Drawing]], list[Tensor]]


@dataclass(frozen=True, slots=True)
class Case:
    """A pipeline and eight wishes of one size and one number of steps, which the plain loop can batch too."""

    name: str
    pipeline: TokenDiffusionPipeline
    drawings: list[Drawing]
    rounds: int


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


def embedded(steps: int | None = None) -> Case:
    """With the checkpoint's own number of steps, or another."""
    pipeline = TokenDiffusionPipeline.from_folder(EMBEDDED)
    sizes = json.loads((EMBEDDED / "decoder.json").read_text(encoding="utf-8"))
    steps, side = steps or sizes["steps"], int(sizes["pixels"] ** 0.5) // pipeline.scale_factor
    return Case(f"embedded, {steps} steps", pipeline, drawings(pipeline, (side, side), steps), 5)


def middle(dtype: torch.dtype, steps: int = 2) -> Case:
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
    return Case(name, pipeline, drawings(pipeline, (16, 16), steps), 3)


def loop(pipeline: TokenDiffusionPipeline, wishes: list[Drawing]) -> list[Tensor]:
    """diffusers' way: one call, with the batch that is given, from noise to pixels."""
    first = wishes[0]
    latents = torch.stack([wish.noise.t().unflatten(-1, wish.size) for wish in wishes])
    height, width = (side * pipeline.scale_factor for side in first.size)
    codes = torch.cat([wish.codes for wish in wishes])
    return list(pipeline(codes, height, width, first.steps, latents=latents))


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


def compare(case: Case, compile_too: bool = False) -> None:
    """Every way beside the plain loop, in the same round; the median of the rounds' ratios."""
    pipeline, wishes = case.pipeline, case.drawings
    alone, batched = StepBatcher(pipeline, slots=1), StepBatcher(pipeline, slots=PICTURES)
    ways: dict[str, Way] = {
        LOOP: lambda wishes: [loop(pipeline, [wish])[0] for wish in wishes],
        "batching alone (one call for all)": lambda wishes: loop(pipeline, wishes),
        "caching alone (one slot)": lambda wishes: together(alone, wishes),
        SERVED: lambda wishes: together(batched, wishes),
    }
    if compile_too:
        ways = {LOOP: ways[LOOP], SERVED: ways[SERVED], "the same, compiled": lambda wishes: compiled(batched, wishes)}
    drawn, ratios = {}, {}
    warm = {name: measured(way, wishes if compile_too else wishes[:1])[1] for name, way in ways.items()}
    for _ in range(case.rounds):
        for name, way in ways.items():
            drawn[name], taken = measured(way, wishes)
            ratios.setdefault(name, []).append(taken)
    pixels = drawn[LOOP][0].shape
    tile = batched._tiles_of(0, wishes[0].size)[0]
    show(f"\n{case.name}: {PICTURES} pictures of {pixels[2]} x {pixels[1]}, {tile} to a product")
    if compile_too:
        show(f"  compiling took {warm['the same, compiled']:.0f} s")
    show(f"  {LOOP}: {PICTURES / median(ratios[LOOP]):.2f} pictures/s, ratio 1")
    for name in list(ways)[1:]:
        ratio = median(base / own for base, own in zip(ratios[LOOP], ratios[name], strict=True))
        error = max((a - b).abs().max().item() for a, b in zip(drawn[name], drawn[LOOP], strict=True))
        show(f"  {name}: {ratio:.2f} (largest difference in a pixel of -1..1: {error:.1e})")
    same = all(torch.equal(a, together(alone, [wish])[0]) for a, wish in zip(drawn[SERVED], wishes, strict=True))
    show(f"  bit for bit what each is alone: {same}")


def compiled(batcher: StepBatcher, wishes: list[Drawing]) -> list[Tensor]:
    plain = step_network.mix
    step_network.mix = COMPILED_MIX
    try:
        return together(batcher, wishes)
    finally:
        step_network.mix = plain


COMPILED_MIX = torch.compile(step_network.mix, dynamic=False)


def measured(way: Way, wishes: list[Drawing]) -> tuple[list[Tensor], float]:
    """On one thread the thread's own time, which other work on the machine does not lengthen; else the clock's."""
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    start = clock()
    return way(wishes), clock() - start


def peaks() -> None:
    """What this machine can do at best: a product of 512 rows in each precision, and copying."""
    weights, rows = torch.randn(3072, 3072), torch.randn(512, 3072)
    for dtype in (torch.float32, torch.bfloat16):
        w, x = weights.to(dtype), rows.to(dtype)
        best = min(measured(lambda _, w=w, x=x: [functional.linear(x, w)], [])[1] for _ in range(10))
        show(f"peak, {str(dtype).removeprefix('torch.')} product: {2 * w.numel() * len(x) / best / 1e9:.0f} GFLOP/s")
    source, target = torch.zeros(1 << 24), torch.zeros(1 << 24)
    best = min(measured(lambda _: [target.copy_(source)], [])[1] for _ in range(10))
    show(f"peak, copying: {2 * source.numel() * 4 / best / 1e9:.0f} GB/s read and written")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    torch.set_num_threads(parser.parse_args().threads)
    warnings.simplefilter("ignore")  # torch's own, while it compiles
    with torch.inference_mode():
        show(f"{torch.get_num_threads()} threads")
        peaks()
        for case in (embedded(), embedded(8), middle(torch.bfloat16), middle(torch.float32)):
            compare(case)
        if shutil.which("g++") is not None:
            compare(embedded(8), compile_too=True)
