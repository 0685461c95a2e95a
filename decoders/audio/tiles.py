"""Step 7, kernel. A convolution of bfloat16 rows on a CPU's matrix tiles (AMX), compiled by numba; knows no layers.

A tile instruction multiplies 16 rows of 32 numbers by 32 x 16 weights. A row is a moment, so nothing is copied: the
tile of a tap is loaded from where the tap looks. Every output is the same sum in the same order wherever its moment lies
and whatever lies beside it, so neither windows nor company change a bit of it.
"""

from __future__ import annotations

import ctypes
import functools
import platform
from typing import Any

import llvmlite.binding
import numpy as np
import torch
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic
from torch import Tensor

from decoders.audio.vectors import LONG, function, settle

ROWS, DEPTH, COLUMNS = 16, 32, 16  # of one tile product
WEIGHTS = DEPTH * COLUMNS * 2  # bytes of a tile of weights
SPEED = 16  # times the numbers a second of `lines`
BLOCK = 256  # rows that stay in the near cache while all weights pass over them
ARCH_PRCTL, REQUEST_PERMISSION, TILE_DATA = 158, 0x1023, 18
BYTE = ir.IntType(8)
SUMS = 4  # registers 0..3 hold sums, 4 and 5 rows, 6 and 7 weights


@functools.cache
def available() -> bool:
    """Whether this CPU multiplies bfloat16 tiles and the system lets this process use them."""
    if platform.system() != "Linux" or not llvmlite.binding.get_host_cpu_features().get("amx-bf16"):
        return False
    return ctypes.CDLL(None).syscall(ARCH_PRCTL, REQUEST_PERMISSION, TILE_DATA) == 0


def emit(builder: ir.IRBuilder, name: str, *operands: Any) -> None:
    """Calls an LLVM intrinsic; whole numbers are tile registers, a pair is an address and a row length in bytes."""
    values: list[Any] = []
    for operand in operands:
        if isinstance(operand, int):
            values.append(ir.Constant(BYTE, operand))
        else:
            values += [builder.inttoptr(operand[0], BYTE.as_pointer()), *operand[1:]]
    builder.call(function(builder, f"llvm.x86.{name}", ir.VoidType(), [value.type for value in values]), values)


@intrinsic
def begin(typing: Any, shapes: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        emit(builder, "ldtilecfg", arguments)
        return context.get_dummy_value()

    return types.void(types.int64), generate


@intrinsic
def end(typing: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        emit(builder, "tilerelease")
        return context.get_dummy_value()

    return types.void(), generate


@intrinsic
def clear(typing: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        for register in range(SUMS):
            emit(builder, "tilezero", register)
        return context.get_dummy_value()

    return types.void(), generate


@intrinsic
def multiply(typing: Any, upper: Any, lower: Any, stride: Any, weights: Any) -> Any:
    """Sums 0 and 2 += the rows at `upper` and `lower` times a tile of weights."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        upper, lower, stride, weights = arguments
        emit(builder, "tileloadd64", 4, (upper, stride))
        emit(builder, "tileloadd64", 6, (weights, ir.Constant(LONG, 4 * COLUMNS)))
        emit(builder, "tileloadd64", 5, (lower, stride))
        emit(builder, "tdpbf16ps", 0, 4, 6)
        emit(builder, "tdpbf16ps", 2, 5, 6)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 4), generate


@intrinsic
def multiply_again(typing: Any, weights: Any) -> Any:
    """Sums 1 and 3 += the rows loaded last times another tile of weights."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        emit(builder, "tileloadd64", 7, (arguments[0], ir.Constant(LONG, 4 * COLUMNS)))
        emit(builder, "tdpbf16ps", 1, 4, 7)
        emit(builder, "tdpbf16ps", 3, 5, 7)
        return context.get_dummy_value()

    return types.void(types.int64), generate


@intrinsic
def take(typing: Any, address: Any) -> Any:
    """The sums as float32 [32, 32]."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        for register, offset in enumerate((0, 64, 16 * 128, 16 * 128 + 64)):
            place = builder.add(arguments[0], ir.Constant(LONG, offset))
            emit(builder, "tilestored64", register, (place, ir.Constant(LONG, 128)))
        return context.get_dummy_value()

    return types.void(types.int64), generate


def pack(weight: Tensor, dilation: int, first: int) -> tuple[np.ndarray, np.ndarray]:
    """[outputs, inputs, taps], the first tap looking at row `first` -> tiles of weights and where each looks.

    uint16 [column blocks, depths, 16, 16, 2] (bfloat16 bits) and int64 [depths], in numbers from a row's beginning.
    """
    outputs, inputs, taps = weight.shape
    rows = weight.permute(2, 1, 0)  # [taps, inputs, outputs]
    # Taps side by side lie side by side in memory as well: they are one run.
    runs = [rows.reshape(taps * inputs, outputs)] if dilation == 1 else list(rows)
    tiles, looks = [], []
    for number, run in enumerate(runs):
        depths, blocks = -(-len(run) // DEPTH), -(-outputs // COLUMNS)
        padded = run.new_zeros(depths * DEPTH, blocks * COLUMNS)
        padded[: len(run), :outputs] = run
        tiles.append(padded.view(depths, DEPTH // 2, 2, blocks, COLUMNS).permute(3, 0, 1, 4, 2))
        looks += [(first + number * dilation) * inputs + depth * DEPTH for depth in range(depths)]
    packed = torch.cat(tiles, dim=1).to(torch.bfloat16).contiguous().view(torch.int16).numpy()
    return packed.view(np.uint16), np.array(looks, np.int64)


@njit(nogil=True, cache=True, fastmath={"contract"})
def convolve(
    x: np.ndarray,  # uint16 [rows, inputs], zeros around every segment
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
    stride, depths, outputs = x.shape[1] * 2, len(looks), out.shape[1]
    sums = np.empty((2 * ROWS, 2 * COLUMNS), np.float32)
    zeros = np.zeros(2 * COLUMNS, np.float32)
    shapes = np.zeros(64, np.uint8)  # palette 1, every register 16 rows of 64 bytes
    shapes[0] = 1
    for register in range(8):
        shapes[16 + 2 * register], shapes[48 + register] = 64, 16
    begin(shapes.ctypes.data)
    for segment in range(len(segments)):
        start, target, length = segments[segment]
        tiles = (length + 2 * ROWS - 1) // (2 * ROWS)
        first, last = tiles * share[0] // share[1] * 2 * ROWS, min(length, tiles * (share[0] + 1) // share[1] * 2 * ROWS)
        for block in range(first, last, BLOCK):
            for column in range(columns[0], columns[1], 2):
                both = column + 1 < columns[1]
                left, right = weights[column].ctypes.data, weights[column + both].ctypes.data
                wide = min(outputs, (column + 1 + both) * COLUMNS) - column * COLUMNS
                for row in range(block, min(last, block + BLOCK), 2 * ROWS):
                    upper = x.ctypes.data + (start + row) * stride
                    clear()
                    for depth in range(depths):
                        place = upper + looks[depth] * 2
                        multiply(place, place + ROWS * stride, stride, left + depth * WEIGHTS)
                        if both:
                            multiply_again(right + depth * WEIGHTS)
                    take(sums.ctypes.data)
                    for r in range(min(2 * ROWS, last - row)):
                        to = (((target + row + r) * step + phase) * outputs + column * COLUMNS) * 4
                        kept = residual.ctypes.data + to if len(residual) else zeros.ctypes.data
                        held = out.ctypes.data + to if add else zeros.ctypes.data
                        made, base = sums.ctypes.data + r * 128, bias.ctypes.data + column * COLUMNS * 4
                        settle(out.ctypes.data + to, made, base, kept, held, min(COLUMNS, wide))
                        if wide > COLUMNS:
                            settle(out.ctypes.data + to + 64, made + 64, base + 64, kept + 64, held + 64, wide - COLUMNS)
    end()
    shapes[0] = 0  # numba frees an array after its last use, and an address alone is none
