"""Step 7, kernels. What a vocoder does to rows [time, channels] besides convolving, compiled by numba; knows no layers.

Rows of many voices lie in one array, each voice in a segment of its own. Anti-aliased Snake is one pass: a block of rows
stays in the near cache while it is doubled in rate, bent, and halved again. Each number is made by the same operations in
the same order wherever the blocks fall.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from decoders.audio.vectors import LANES, double, halve, write

NUMBERS = 4096  # of one block: with its doubled rate it stays near
SLAB = 64  # channels of one block
REACH = 3  # rows on either side, of each filter
PAD = 8 * LANES  # numbers that may be made beyond a block's end


@njit(nogil=True, cache=True)
def activate(
    x: np.ndarray,  # float32 [rows, channels]
    scale: np.float32,  # of x
    alpha: np.ndarray,  # float32 [channels], divided by pi
    inverse: np.ndarray,  # float32 [channels], 1 / beta
    up: tuple[float, ...],  # twelve float32, times two
    down: tuple[float, ...],  # twelve float32
    out: np.ndarray,  # uint16 (bfloat16 bits) or float32, as x
    segments: np.ndarray,  # int64 [n, 2]: start, length
    share: tuple[int, int],  # this worker's place among the workers that divide the rows
) -> None:
    channels = x.shape[1]
    slab = channels if channels <= 2 * SLAB else SLAB
    rows = max(8, NUMBERS // slab)
    block = rows * slab
    seen = np.zeros(block + 4 * REACH * slab + PAD, np.float32)
    even, odd = np.zeros(block + 2 * REACH * slab + PAD, np.float32), np.zeros(block + 2 * REACH * slab + PAD, np.float32)
    alphas, inverses = np.zeros(len(even), np.float32), np.zeros(len(even), np.float32)
    for low in range(0, channels, slab):
        wide = min(slab, channels - low)
        for row in range(rows + 2 * REACH):
            alphas[row * wide : (row + 1) * wide] = alpha[low : low + wide]
            inverses[row * wide : (row + 1) * wide] = inverse[low : low + wide]
        for segment in range(len(segments)):
            start, length = segments[segment]
            end = length * (share[0] + 1) // share[1]
            for begin in range(length * share[0] // share[1], end, rows):
                count = min(rows, end - begin)
                for row in range(count + 4 * REACH):
                    place = start + min(max(begin + row - 2 * REACH, 0), length - 1)
                    for c in range(0, wide, LANES):
                        source, to = x.ctypes.data + (place * channels + low + c) * 4, seen.ctypes.data + (row * wide + c) * 4
                        write(source, scale, seen, to, min(LANES, wide - c))
                # even[0] lies three rows before `begin`, and seen[0] another three.
                for i in range(0, (count + 2 * REACH) * wide * 4, LANES * 4):
                    bend = alphas.ctypes.data + i, inverses.ctypes.data + i, even.ctypes.data + i, odd.ctypes.data + i
                    double(seen.ctypes.data + i, wide * 4, bend[0], bend[1], bend[2], bend[3], up)
                for row in range(REACH - begin):  # beyond the ends the doubled signal repeats its last number
                    for c in range(wide):
                        even[row * wide + c] = odd[row * wide + c] = even[(REACH - begin) * wide + c]
                for row in range(length - begin + REACH, count + 2 * REACH):
                    for c in range(wide):
                        even[row * wide + c] = odd[row * wide + c] = odd[(length - begin + REACH - 1) * wide + c]
                # All of a block in one line where rows are whole, else row by row.
                lines, line = (1, count * wide) if wide == channels else (count, wide)
                for row in range(lines):
                    target = out.ctypes.data + ((start + begin + row) * channels + low) * out.itemsize
                    for i in range(0, line, LANES):
                        at = (row * wide + i) * 4
                        sources = even.ctypes.data + at, odd.ctypes.data + at
                        halve(sources[0], sources[1], wide * 4, out, target + i * out.itemsize, min(LANES, line - i), down)


@njit(nogil=True, cache=True)
def carry(x: np.ndarray, scale: np.float32, out: np.ndarray, segments: np.ndarray) -> None:
    """out = x * scale. float32 -> float32 or bfloat16 bits; segments int64 [n, 3]: start in x, start in out, length."""
    channels = x.shape[1]
    for segment in range(len(segments)):
        source, target, length = segments[segment]
        for i in range(0, length * channels, LANES):
            place, to = source * channels + i, target * channels + i
            at = out.ctypes.data + to * out.itemsize
            write(x.ctypes.data + place * 4, scale, out, at, min(LANES, length * channels - i))


@njit(nogil=True, cache=True, fastmath={"contract", "reassoc", "nsz"})
def mix(x: np.ndarray, weight: np.ndarray, before: int, bias: np.float32, out: np.ndarray, segments: np.ndarray) -> None:
    """A convolution to one channel. float32 [rows, channels] and [taps * channels] -> [samples]; segments as in `carry`."""
    channels, flat = x.shape[1], x.reshape(-1)
    for segment in range(len(segments)):
        source, target, length = segments[segment]
        for row in range(length):
            place, total = (source + row - before) * channels, np.float32(0)
            for i in range(len(weight)):
                total += flat[place + i] * weight[i]
            out[target + row] = total + bias
