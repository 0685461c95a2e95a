"""Step 7, kernel. A convolution of rows, sixteen outputs at a time, compiled by numba; knows no layers.

Like `tiles` for any CPU: every output is the same sum in the same order wherever its moment lies and whatever lies beside.
Numbers are float32, or bfloat16 where the CPU multiplies pairs of them (AVX-512 BF16); a pair takes the place of a float32.
"""

from __future__ import annotations

from typing import Any

import llvmlite.binding
import numpy as np
import torch
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic
from torch import Tensor
from torch.nn import functional

from decoders.audio.vectors import (
    LANES,
    LONG,
    VECTOR,
    WORD,
    constant,
    load,
    multiply_add,
    multiply_add_pairs,
    place,
    settle,
    spread,
)

SPEED, PAIRS_SPEED = 1, 2  # numbers a second, of float32 and of bfloat16
BLOCK = 256  # rows over which the weights of one column block stay in the near cache
ROWS = 8  # whose sums stay in registers while the weights pass


def pairs_available() -> bool:
    """Whether this CPU multiplies pairs of bfloat16."""
    llvmlite.binding.initialize_native_asmparser()  # the instruction is written by its name
    return bool(llvmlite.binding.get_host_cpu_features().get("avx512bf16"))


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


def pack_pairs(weight: Tensor, dilation: int, first: int) -> tuple[np.ndarray, np.ndarray]:
    """As `pack`, for bfloat16: uint32 [column blocks, runs, pairs, 16], the first of a pair in the lower bits."""
    packed, looks = pack(weight, dilation, first)
    even = functional.pad(torch.from_numpy(packed), (0, 0, 0, packed.shape[2] % 2))
    pairs = even.unflatten(2, (-1, 2)).transpose(3, 4).to(torch.bfloat16).contiguous()
    return pairs.view(torch.int32)[..., 0].numpy().view(np.uint32), looks


@intrinsic
def product(typing: Any, rows: Any, x: Any, stride: Any, looks: Any, runs: Any, weights: Any, length: Any, sums: Any) -> Any:
    """float32 [blocks, 8, 16] at `sums`: rows `stride` bytes apart from `x`, times the weights of one or two blocks of
    columns (a tuple), over all runs of `length`. Of the array `rows` only the kind of number is asked: uint16 is bfloat16."""
    pairs = rows.dtype == types.uint16

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _, x, stride, looks, runs, weights, length, sums = arguments
        four, width, size = ir.Constant(LONG, 4), ir.Constant(LONG, 4 * LANES), ir.Constant(LONG, 2 if pairs else 4)
        multiply, kind = (multiply_add_pairs, WORD) if pairs else (multiply_add, ir.FloatType())
        blocks = [builder.extract_value(weights, block) for block in range(weights.type.count)]
        totals = [cgutils.alloca_once_value(builder, constant(0.0)) for _ in range(len(blocks) * ROWS)]
        for total in totals:
            builder.store(constant(0.0), total)
        with cgutils.for_range(builder, runs) as run:
            look = builder.load(place(builder, looks, builder.mul(run.index, ir.Constant(LONG, 8)), LONG))
            base = builder.add(x, builder.mul(look, size))
            before = builder.mul(run.index, length)
            with cgutils.for_range(builder, length) as number:
                at = builder.mul(builder.add(before, number.index), width)
                found = [load(builder, block, at) for block in blocks]
                for row in range(ROWS):
                    offset = builder.add(builder.mul(stride, ir.Constant(LONG, row)), builder.mul(number.index, four))
                    value = spread(builder, builder.load(place(builder, base, offset, kind), align=2 if pairs else 4))
                    for weight, total in zip(found, totals[row::ROWS], strict=True):
                        builder.store(multiply(builder, value, weight, builder.load(total)), total)
        for row, total in enumerate(totals):
            builder.store(builder.load(total), place(builder, sums, ir.Constant(LONG, row * 4 * LANES), VECTOR), align=4)
        return context.get_dummy_value()

    return types.void(rows, *[types.int64] * 4, weights, *[types.int64] * 2), generate


@njit(nogil=True, cache=True)
def convolve(
    x: np.ndarray,  # float32 or uint16 (bfloat16 bits) [rows, inputs], zeros around every segment
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
    outputs, stride = out.shape[1], x.shape[1] * x.itemsize
    sums, zeros = np.empty((2, ROWS, LANES), np.float32), np.zeros(LANES, np.float32)
    for segment in range(len(segments)):
        start, target, length = segments[segment]
        last = length * (share[0] + 1) // share[1]
        for block in range(length * share[0] // share[1], last, BLOCK):
            for column in range(columns[0], columns[1], 2):  # two blocks share what is read of `x`
                blocks = min(2, columns[1] - column)
                left, right = weights[column].ctypes.data, weights[column + blocks - 1].ctypes.data
                for row in range(block, min(last, block + BLOCK), ROWS):
                    place = x.ctypes.data + (start + row) * stride
                    runs = stride, looks.ctypes.data, len(looks)
                    if blocks == 2:
                        product(x, place, runs[0], runs[1], runs[2], (left, right), weights.shape[2], sums.ctypes.data)
                    else:
                        product(x, place, runs[0], runs[1], runs[2], (left,), weights.shape[2], sums.ctypes.data)
                    for number in range(blocks):
                        first = (column + number) * LANES
                        base, wide = bias.ctypes.data + first * 4, min(LANES, outputs - first)
                        for r in range(min(ROWS, last - row)):
                            to = (((target + row + r) * step + phase) * outputs + first) * 4
                            kept = residual.ctypes.data + to if len(residual) else zeros.ctypes.data
                            held = out.ctypes.data + to if add else zeros.ctypes.data
                            made = sums.ctypes.data + (number * ROWS + r) * LANES * 4
                            settle(out.ctypes.data + to, made, base, kept, held, wide)
