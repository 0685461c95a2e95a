"""The vocoder's ratios, in one run beside the machine's peaks: plain against compiled, part by part, streams, company.

    python -m bench.vocoder

Two networks: the checkpoint that ships, and the published structure of 139 M parameters with random weights.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch

from decoders.audio import compiled
from decoders.audio.audio import AudioDecoder, DecodeOptions
from decoders.audio.compiled import CompiledVocoder, multiplies_bfloat16
from decoders.audio.look_ahead import cost, random_utterances
from decoders.audio.unit_bigvgan import AntiAliasedSnake, Convolution, UnitBigVGAN, Upsampling, VocoderConfig
from decoders.audio.vocoder import Window

EMBEDDED = Path(__file__).parent.parent / "omni_server" / "embedded" / "audio_decoder"
PUBLISHED = VocoderConfig(
    num_units=6561,
    unit_emb_dim=1280,
    spk_emb_dim=256,
    upsample_initial_channel=1536,
    upsample_rates=(5, 4, 4, 3, 2, 2),
    upsample_kernel_sizes=(10, 8, 8, 6, 4, 4),
    resblock_kernel_sizes=(3, 7, 11),
    resblock_dilation_sizes=((1, 3, 5), (1, 3, 5), (1, 3, 5)),
    use_bias_at_final=False,
    use_tanh_at_final=False,
    causal=False,
    finetune=True,
    num_spk=26,
)
UNITS = 25  # one second
PASSES = 4  # of plain and compiled alike, after one that warms up; the best counts
clock = time.perf_counter


def seconds(function: Callable[[], Any], times: int = 5, warm: bool = True) -> float:
    """The best of several, so that a busy moment of the machine does not count."""
    if warm:
        function()
    taken = []
    for _ in range(times):
        start = clock()
        function()
        taken.append(clock() - start)
    return min(taken)


def peaks() -> dict[str, float]:
    """Multiply-adds (two operations) a second in both precisions, and bytes read and written a second."""
    one = torch.randn(2048, 2048)
    half, source, target = one.bfloat16(), torch.zeros(64 << 20), torch.zeros(64 << 20)
    found = {
        "float32": 2 * 2048**3 / seconds(lambda: one @ one),
        "bfloat16": 2 * 2048**3 / seconds(lambda: half @ half),
        "memory": 2 * 4 * (64 << 20) / seconds(lambda: target.copy_(source)),
    }
    print(
        f"peaks, {torch.get_num_threads()} threads: float32 product {found['float32'] / 1e9:.0f} GFLOP/s, bfloat16 product "
        f"{found['bfloat16'] / 1e9:.0f} GFLOP/s, memory copy {found['memory'] / 1e9:.1f} GB/s"
    )
    return found


def whole(network: UnitBigVGAN, count: int = UNITS) -> Window:
    units = torch.randint(0, network.config.num_units, (count,), generator=torch.Generator().manual_seed(0)).tolist()
    return Window(units, network.spk_emb(torch.tensor([0])), (0, count * network.samples_per_unit - 1))


def operations(network: UnitBigVGAN) -> tuple[float, float]:
    """Of one second: floating-point operations of convolutions, and numbers that pass an activation."""
    config, flops, activated, frames = network.config, 0.0, 0.0, float(UNITS)
    flops += 2 * network.conv_pre.conv.weight.numel() * frames
    for stage, rate in enumerate(config.upsample_rates):
        upsampling, blocks = network.layers(stage)
        flops += 2 * upsampling.deconv.weight.numel() * frames
        frames *= rate
        for block in blocks:
            layers = [*block.convs1, *block.convs2]
            flops += sum(2 * layer.conv.weight.numel() * frames for layer in layers)
            activated += len(layers) * upsampling.deconv.out_channels * frames
    return flops, activated


class Watch:
    """Seconds inside every layer of some kinds."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = defaultdict(float)

    def wrap(self, function: Callable[..., Any], part: str) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            start = clock()
            try:
                return function(*args, **kwargs)
            finally:
                self.spent[part] += clock() - start

        return timed


def plain_parts(network: UnitBigVGAN, window: Window) -> tuple[float, dict[str, float]]:
    """One pass of the reference, with the clock in its layers."""
    watch, before = Watch(), {}
    for layer in network.modules():
        part = {Convolution: "convolutions", Upsampling: "convolutions", AntiAliasedSnake: "activations"}.get(type(layer))
        if part:
            before[layer] = layer.forward
            layer.forward = watch.wrap(layer.forward, part)
    start = clock()
    network(torch.tensor(window.units)[None], window.voice)
    total = clock() - start
    for layer in before:
        del layer.forward
    return total, dict(watch.spent)


def compiled_parts(vocoder: CompiledVocoder, window: Window) -> tuple[float, dict[str, float]]:
    watch = Watch()
    kinds = {compiled.Layer: "convolutions", compiled.Activation: "activations"}
    before = {kind: kind.__call__ for kind in kinds}
    for kind, part in kinds.items():
        kind.__call__ = watch.wrap(kind.__call__, part)  # type: ignore[method-assign]
    start = clock()
    vocoder.speak([window])
    total = clock() - start
    for kind in kinds:
        kind.__call__ = before[kind]  # type: ignore[method-assign]
    return total, dict(watch.spent)


def decibels(sound: np.ndarray, other: np.ndarray) -> float:
    return float(10 * np.log10(np.square(sound).mean() / np.square(sound - other).mean()))


def told(name: str, total: float, parts: dict[str, float]) -> None:
    rest = total - sum(parts.values())
    shares = ", ".join(f"{part} {spent:.3f}" for part, spent in parts.items())
    print(f"  {name:22} {total:7.3f} s for 1 s of sound ({shares}, rest {rest:.3f})")


@torch.inference_mode()
def speed(name: str, network: UnitBigVGAN, machine: dict[str, float]) -> None:
    """Plain against compiled at batch 1, part by part, and how far from the floor."""
    window = whole(network)
    flops, activated = operations(network)
    print(f"{name}: {sum(p.numel() for p in network.parameters()) / 1e6:.1f} M parameters, {flops / 1e9:.1f} GFLOP and "
          f"{activated / 1e6:.1f} M activations a second of sound")  # fmt: skip
    units = torch.tensor(window.units)[None]
    expected = network(units, window.voice)[0, 0].numpy()  # warms up, as `vocoder.speak` below does
    plain, parts = min((plain_parts(network, window) for _ in range(PASSES)), key=lambda measured: measured[0])
    told("plain", plain, parts)
    for precision in ("float32", *(["bfloat16"] if multiplies_bfloat16() else [])):
        vocoder = CompiledVocoder(network, precision, torch.get_num_threads())
        (made,) = vocoder.speak([window])
        quick, parts = min((compiled_parts(vocoder, window) for _ in range(PASSES)), key=lambda measured: measured[0])
        told(f"compiled, {precision}", quick, parts)
        floor = flops / machine[precision]
        error = f", {decibels(expected, made):.0f} dB over its error"
        print(f"    {plain / quick:.1f} x plain; convolutions {parts['convolutions'] / floor:.1f} x the time of as many "
              f"operations in a product, activations {parts['activations'] / activated * 1e9:.2f} ns each{error}")  # fmt: skip


@torch.inference_mode()
def company(name: str, network: UnitBigVGAN) -> None:
    """Four more units for several voices: in one call, against one call each."""
    left, right = network.context()
    window = whole(network, left + right + 4)
    rate = network.samples_per_unit
    windows = [Window(window.units[: left + 12], window.voice, (left * rate, (left + 4) * rate - 1))] * 8
    vocoder = CompiledVocoder(network, "bfloat16" if multiplies_bfloat16() else "float32", torch.get_num_threads())
    alone = seconds(lambda: vocoder.speak(windows[:1]))
    for voices in (1, 4, 8):
        taken = seconds(lambda voices=voices: vocoder.speak(windows[:voices]))
        print(f"  {name}: 4 units of {voices} voices in one call {taken * 1000:.1f} ms, "
              f"{taken / (voices * 0.16):.3f} s a second of sound, gain {voices * alone / taken:.2f}")  # fmt: skip


def streams(decoder: AudioDecoder) -> None:
    """First sound and error of both look-aheads, and many streams at once against one after another."""
    utterances = random_utterances(decoder.network.config.num_units)
    for look_ahead in ("exact", "low_latency"):
        options = DecodeOptions(look_ahead=look_ahead)  # type: ignore[arg-type]
        stream = decoder.open(options)
        waits = next(count for count, unit in enumerate(utterances[0], start=1) if stream.feed([unit]))

        def first(waits: int = waits, options: DecodeOptions = options) -> None:
            decoder.open(options).feed(utterances[0][:waits])

        error = ""
        if look_ahead == "low_latency":
            measured = cost(decoder, utterances[:2], decoder.streaming.look_ahead_units)
            error = f"; error {measured.error:.1f} dB, worst unit {measured.worst:.1f} dB, jump {measured.jump:.1f} dBFS"
        print(f"  {look_ahead:11} first sound waits for {waits} units ({waits / 25:.2f} s of speech) and takes "
              f"{seconds(first) * 1000:.1f} ms{error}")  # fmt: skip

    def speak(units: list[int]) -> None:
        stream = decoder.open(DecodeOptions())
        for unit in units:
            stream.feed([unit])
        stream.finish()

    eight = [utterances[0]] * 8
    apart = seconds(lambda: [speak(units) for units in eight], times=2)
    with ThreadPoolExecutor(8) as threads:
        together = seconds(lambda: list(threads.map(speak, eight)), times=2)
    print(f"  8 streams of 3.2 s: one after another {apart:.2f} s, at once {together:.2f} s, gain {apart / together:.2f}; "
          f"{together / (8 * len(eight[0]) / 25):.4f} s a second of sound")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--cpu-time", action="store_true", help="count the process's own time: for a busy machine, one thread")
    arguments = parser.parse_args()
    if arguments.cpu_time:
        global clock
        clock = time.process_time
    torch.set_num_threads(1 if arguments.cpu_time else arguments.threads)
    machine = peaks()
    shipped = AudioDecoder.from_pretrained(EMBEDDED)
    torch.manual_seed(0)
    published = UnitBigVGAN(PUBLISHED).eval().requires_grad_(False)
    speed("shipped", shipped.network, machine)
    speed("published structure", published, machine)
    print("many voices")
    company("shipped", shipped.network)
    company("published structure", published)
    print("streams of the shipped checkpoint")
    streams(shipped)


if __name__ == "__main__":
    main()
