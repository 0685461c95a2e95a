"""Step 7, network. The function of `unit_bigvgan.py` on a CPU, many voices at once, by compiled kernels.

Rows are moments and columns channels. The windows of all voices lie in one array, with zeros between them, so each layer
is one pass over everyone. The residual signal is float32; convolutions read bfloat16 where the CPU multiplies it, else
float32. Knows nothing of streams.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import Tensor

from decoders.audio import lines, rows, tiles
from decoders.audio.unit_bigvgan import AntiAliasedSnake, Convolution, UnitBigVGAN, Upsampling
from decoders.audio.vocoder import Window

GRAIN = 1 << 22  # multiplications that are worth waking another thread for
Segments = np.ndarray  # int64 [voices, 2]: first row, number of rows
COLUMNS = 16  # of a block of outputs
NONE = np.zeros((0, 1), np.float32)


def multiplies_bfloat16() -> bool:
    """Whether a kernel for it runs here; asking is also what lets this process use the tiles."""
    return tiles.available() or lines.pairs_available()


class Threads:
    """Runs the shares of one layer side by side."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._pool = ThreadPoolExecutor(max(1, count - 1), thread_name_prefix="vocoder")

    def run(self, work: int, share: Callable[[int, int], None]) -> None:
        """`share(place, shares)` for every place, as many as `work` (multiplications) is worth."""
        shares = max(1, min(self.count, work // GRAIN))
        others = [self._pool.submit(share, place, shares) for place in range(1, shares)]
        try:
            share(0, shares)
        finally:
            for other in others:
                other.result()


class Layer:
    """A convolution, or one phase of a transposed one."""

    def __init__(
        self, threads: Threads, precision: str, weight: Tensor, bias: Tensor | None, dilation: int, first: int
    ) -> None:
        if precision == "float32":
            self.convolve, self.speed, pack = lines.convolve, lines.SPEED, lines.pack
        elif tiles.available():
            self.convolve, self.speed, pack = tiles.convolve, tiles.SPEED, tiles.pack
        else:
            self.convolve, self.speed, pack = lines.convolve, lines.PAIRS_SPEED, lines.pack_pairs
        self.threads = threads
        self.weights, self.looks = pack(weight, dilation, first)
        self.bias = np.zeros(len(self.weights) * COLUMNS, np.float32)
        if bias is not None:
            self.bias[: len(bias)] = bias.numpy()

    def __call__(
        self, x: np.ndarray, out: np.ndarray, segments: np.ndarray, residual: np.ndarray = NONE,
        add: bool = False, step: int = 1, phase: int = 0,
    ) -> None:  # fmt: skip
        count, blocks = int(segments[:, 2].sum()), len(self.weights)
        whole = x, self.weights, self.looks, self.bias, out, residual, add, segments, step, phase

        def share(place: int, shares: int) -> None:
            if count < 128 * shares:  # few rows: everyone takes all of them, for some of the columns
                first, last = (min(blocks, 2 * (((blocks + 1) // 2) * edge // shares)) for edge in (place, place + 1))
                self.convolve(*whole, (0, 1), (first, last))
            else:
                self.convolve(*whole, (place, shares), (0, blocks))

        self.threads.run(count * self.weights.size // self.speed, share)


class Activation:
    def __init__(self, threads: Threads, layer: AntiAliasedSnake) -> None:
        alpha, beta = layer.act.alpha.detach(), layer.act.beta.detach()
        if layer.act.logscale:
            alpha, beta = alpha.exp(), beta.exp()
        self.threads = threads
        self.alpha, self.inverse = (alpha / math.pi).numpy(), (beta + 1e-9).reciprocal().numpy()
        self.up = tuple(map(np.float32, (2 * layer.upsample.filter).view(-1).tolist()))
        self.down = tuple(map(np.float32, layer.downsample.lowpass.filter.view(-1).tolist()))

    def __call__(self, x: np.ndarray, out: np.ndarray, segments: Segments, scale: float = 1.0) -> None:
        values = np.float32(scale), self.alpha, self.inverse, self.up, self.down

        def share(place: int, shares: int) -> None:
            rows.activate(x, *values, out, segments, (place, shares))

        self.threads.run(int(segments[:, 1].sum()) * x.shape[1] * 64, share)


class CompiledVocoder:
    """One network, ready to speak; one caller at a time."""

    def __init__(self, network: UnitBigVGAN, precision: str, threads: int) -> None:
        if precision == "bfloat16" and not multiplies_bfloat16():
            raise ValueError("`bfloat16` needs a CPU with AMX tiles or AVX-512 BF16; this one has neither")
        self.network, self.precision = network, precision
        self._threads = Threads(threads)
        self._number = np.uint16 if precision == "bfloat16" else np.float32  # what convolutions read
        self._needs = functools.lru_cache(maxsize=1024)(network.needs)
        every = [layer for layer in network.modules() if isinstance(layer, Convolution)]
        reach = max(max(layer.before, layer.after) for layer in every)
        self._between = reach + 2 * 32  # a tile may look that far beyond a segment's last row
        self._pre = self._convolution(network.conv_pre)
        self._stages = [self._stage(*network.layers(stage)) for stage in range(len(network.ups))]
        self._post = Activation(self._threads, network.activation_post)
        self._last = network.conv_post.conv.weight.detach()[0].T.reshape(-1).numpy().copy()  # [taps * channels]
        bias = network.conv_post.conv.bias
        self._last_bias = np.float32(0.0 if bias is None else bias.item())

    def _convolution(self, layer: Convolution) -> Callable[..., None]:
        conv = layer.conv
        bias = None if conv.bias is None else conv.bias.detach()
        return Layer(self._threads, self.precision, conv.weight.detach(), bias, conv.dilation[0], -layer.before)

    def _stage(self, upsampling: Upsampling, blocks: Sequence[Any]) -> tuple[Any, ...]:
        made = []
        for block in blocks:
            layers = zip(block.activations[::2], block.convs1, block.activations[1::2], block.convs2, strict=True)
            made.append(
                [
                    (Activation(self._threads, a), self._convolution(b), Activation(self._threads, c), self._convolution(d))
                    for a, b, c, d in layers
                ]
            )
        return upsampling, self._phases(upsampling), made

    def _phases(self, layer: Upsampling) -> list[Layer]:
        """A transposed convolution makes each of its `rate` outputs between two rows by a small convolution of its own."""
        weight, bias = layer.deconv.weight.detach(), layer.deconv.bias.detach()  # [inputs, outputs, kernel]
        phases = []
        for phase in range(layer.rate):
            place = phase + layer.shift
            taps = range(place % layer.rate, layer.kernel, layer.rate)  # tap `k` looks at row (place - k) / rate
            small = weight[:, :, [*reversed(taps)]].permute(1, 0, 2)
            phases.append(Layer(self._threads, self.precision, small, bias, 1, (place - taps[-1]) // layer.rate))
        return phases

    def _layout(self, lengths: Sequence[int]) -> tuple[Segments, int]:
        """Segments of these lengths with zeros around them, and the number of rows of all."""
        starts = np.cumsum([self._between, *(length + self._between for length in lengths)])
        return np.array([*zip(starts[:-1], lengths, strict=True)], np.int64), int(starts[-1])

    def _blank(self, segments: Segments, total: int, channels: int, number: Any) -> np.ndarray:
        """An array whose rows between the segments are zero."""
        made, end = np.empty((total, channels), number), 0
        for start, length in segments:
            made[end:start] = 0
            end = start + length
        made[end:] = 0
        return made

    @torch.inference_mode()
    def speak(self, windows: Sequence[Window]) -> list[np.ndarray]:
        """The wanted samples of each window, float32 [samples]."""
        needs = [self._needs(window.wanted)[0] for window in windows]
        segments, x = self._begin(windows)
        begins, scale = [0] * len(windows), 1.0  # where each segment begins in its window, at the present rate
        for stage, (upsampling, phases, blocks) in enumerate(self._stages):
            parts = []  # what later stages need of each segment: first row, number of rows
            for index, (start, length) in enumerate(segments.tolist()):
                first = max(needs[index][stage][0], begins[index])
                last = min(needs[index][stage][1] + 1, begins[index] + length)
                parts.append((start + first - begins[index], last - first))
                begins[index] = first * upsampling.rate
            segments, x = self._upsample(x, scale, np.array(parts, np.int64), upsampling, phases)
            x = self._residual(x, segments, blocks)
            scale = 1.0 / len(blocks)
        return self._end(x, scale, segments, windows, begins)

    def _begin(self, windows: Sequence[Window]) -> tuple[Segments, np.ndarray]:
        config = self.network.config
        segments, total = self._layout([len(window.units) for window in windows])
        seen = np.zeros((total, config.unit_emb_dim + config.spk_emb_dim), np.float32)
        for window, (start, length) in zip(windows, segments, strict=True):
            units = self.network.unit_emb(torch.tensor(window.units)) * config.unit_emb_dim**-0.5
            seen[start : start + length, : config.unit_emb_dim] = units.numpy()
            seen[start : start + length, config.unit_emb_dim :] = window.voice.numpy()
        both = np.column_stack([segments[:, 0], segments[:, 0], segments[:, 1]])
        read = self._blank(segments, total, seen.shape[1], self._number)
        rows.carry(seen, np.float32(1), read, both)
        x = np.empty((total, config.upsample_initial_channel), np.float32)
        self._pre(read, x, both)
        return segments, x

    def _upsample(
        self, x: np.ndarray, scale: float, parts: np.ndarray, layer: Upsampling, phases: Sequence[Callable[..., None]]
    ) -> tuple[Segments, np.ndarray]:
        segments, total = self._layout(parts[:, 1].tolist())
        read = self._blank(segments, total, x.shape[1], self._number)
        rows.carry(x, np.float32(scale), read, np.column_stack([parts[:, 0], segments]))
        if layer.causal:  # the row before the first repeats it
            read[segments[:, 0] - 1] = read[segments[:, 0]]
        made, total = self._layout((segments[:, 1] * layer.rate).tolist())
        # Rows of `out` are counted in groups of `rate`, so a segment begins a group.
        made[:, 0] = -(-made[:, 0] // layer.rate) * layer.rate
        out = np.empty((total + layer.rate, layer.deconv.out_channels), np.float32)
        both = np.column_stack([segments[:, 0], made[:, 0] // layer.rate, segments[:, 1]])
        for phase, convolution in enumerate(phases):
            convolution(read, out, both, step=layer.rate, phase=phase)
        return made, out

    def _residual(self, x: np.ndarray, segments: Segments, blocks: Sequence[Any]) -> np.ndarray:
        """The sum of the residual blocks."""
        read = self._blank(segments, len(x), x.shape[1], self._number)
        between, held, total = np.empty_like(x), np.empty_like(x), np.empty_like(x)
        both = np.column_stack([segments[:, 0], segments[:, 0], segments[:, 1]])
        for number, block in enumerate(blocks):
            state = x
            for pair, (activation1, conv1, activation2, conv2) in enumerate(block):
                activation1(state, read, segments)
                conv1(read, between, both)
                activation2(between, read, segments)
                last = pair == len(block) - 1
                conv2(read, total if last else held, both, residual=state, add=last and number > 0)
                state = held
        return total

    def _end(
        self, x: np.ndarray, scale: float, segments: Segments, windows: Sequence[Window], begins: Sequence[int]
    ) -> list[np.ndarray]:
        seen = self._blank(segments, len(x), x.shape[1], np.float32)
        self._post(x, seen, segments, scale)
        firsts = [window.wanted[0] - begin for window, begin in zip(windows, begins, strict=True)]
        lengths = [window.wanted[1] + 1 - window.wanted[0] for window in windows]
        targets = np.cumsum([0, *lengths])
        both = np.column_stack([segments[:, 0] + firsts, targets[:-1], lengths])
        out = np.empty(targets[-1], np.float32)
        rows.mix(seen, self._last, self.network.conv_post.before, self._last_bias, out, both)
        out = np.tanh(out) if self.network.config.use_tanh_at_final else np.clip(out, -1.0, 1.0)
        return np.split(out, targets[1:-1])
