"""Step 7, kernel. A convolution of float32 rows, sixteen outputs at a time, compiled by numba; knows no layers.

Like `tiles` for any CPU: every output is the same sum in the same order wherever its moment lies and whatever lies beside.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic
from torch import Tensor

from decoders.audio.vectors import LANES, LONG, VECTOR, constant, load, multiply_add, place, settle, spread

SPEED = 1
BLOCK = 256  # rows over which the weights of one column block stay in the near cache
ROWS = 8  # whose sums stay in registers while the weights pass


def pack(weight: Tensor, dilation: int, first: int) -> tuple[np.ndarray, np.ndarray]:
    """[outputs, inputs, taps], the first tap looking at row `first` -> the weights of each column block and where its
    runs look. float32 [column blocks, runs, numbers, 16] and int64 [runs], in numbers from a row's beginning."""
    outputs, inputs, taps = weight.shape
    runs = 1 if dilation == 1 else taps  # taps side by side lie side by side in memory as well
    blocks = -(-outputs // LANES)
    padded = weight.new_zeros(runs, taps * inputs // runs, blocks * LANES)
    padded[..., :outputs] = weight.permute(2, 1, 0).reshape(runs, -1, outputs)
    packed = padded.view(runs, -1, blocks, LANES).permute(2, 0, 1, 3).contiguous().numpy()
    return packed, (first + dilation * np.arange(runs)) * inputs


@intrinsic
def product(typing: Any, x: Any, stride: Any, looks: Any, runs: Any, weights: Any, length: Any, sums: Any) -> Any:
    """float32 [8, 16] at `sums`: rows `stride` bytes apart from `x`, times the weights, over all runs of `length`."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        x, stride, looks, runs, weights, length, sums = arguments
        four, width = ir.Constant(LONG, 4), ir.Constant(LONG, 4 * LANES)
        totals = [cgutils.alloca_once_value(builder, constant(0.0)) for _ in range(ROWS)]
        for total in totals:
            builder.store(constant(0.0), total)
        with cgutils.for_range(builder, runs) as run:
            look = builder.load(place(builder, looks, builder.mul(run.index, ir.Constant(LONG, 8)), LONG))
            base = builder.add(x, builder.mul(look, four))
            tap = builder.add(weights, builder.mul(builder.mul(run.index, length), width))
            with cgutils.for_range(builder, length) as number:
                weight = load(builder, tap, builder.mul(number.index, width))
                for row, total in enumerate(totals):
                    offset = builder.add(builder.mul(stride, ir.Constant(LONG, row)), builder.mul(number.index, four))
                    value = spread(builder, builder.load(place(builder, base, offset, ir.FloatType())))
                    builder.store(multiply_add(builder, value, weight, builder.load(total)), total)
        for row, total in enumerate(totals):
            builder.store(builder.load(total), place(builder, sums, ir.Constant(LONG, row * 4 * LANES), VECTOR), align=4)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 7), generate


@njit(nogil=True, cache=True)
def convolve(
    x: np.ndarray,  # float32 [rows, inputs], zeros around every segment
    weights: np.ndarray,
    looks: np.ndarray,
    bias: np.ndarray,  # float32 [column blocks * 16]
    out: np.ndarray,  # float32 [rows, outputs]; row r of x makes row r * step + phase, counted from the segments' starts
    residual: np.ndarray,  # float32 [rows, outputs], or no rows
    add: bool,  # to what `out` holds
    segments: np.ndarray,  # int64 [n, 3]: start in x, start in out, length
    step: int,
    phase: int,
    share: tuple[int, int],  # this worker's place among the workers that divide the rows
    columns: tuple[int, int],  # blocks of columns to make
) -> None:
    outputs = out.shape[1]
    sums, zeros = np.empty((ROWS, LANES), np.float32), np.zeros(LANES, np.float32)
    for segment in range(len(segments)):
        start, target, length = segments[segment]
        last = length * (share[0] + 1) // share[1]
        for block in range(length * share[0] // share[1], last, BLOCK):
            for column in range(columns[0], columns[1]):
                numbers, base = weights[column].ctypes.data, bias.ctypes.data + column * LANES * 4
                wide = min(LANES, outputs - column * LANES)
                for row in range(block, min(last, block + BLOCK), ROWS):
                    place = x.ctypes.data + (start + row) * x.shape[1] * 4
                    product(place, x.shape[1] * 4, looks.ctypes.data, len(looks), numbers, weights.shape[2], sums.ctypes.data)
                    for r in range(min(ROWS, last - row)):
                        to = (((target + row + r) * step + phase) * outputs + column * LANES) * 4
                        kept = residual.ctypes.data + to if len(residual) else zeros.ctypes.data
                        held = out.ctypes.data + to if add else zeros.ctypes.data
                        settle(out.ctypes.data + to, sums.ctypes.data + r * LANES * 4, base, kept, held, wide)
