"""Step 7, kernels. What a vocoder does to rows [time, channels] besides convolving, compiled by numba; knows no layers.

Rows of many voices lie in one array, each voice in a segment of its own. Anti-aliased Snake is one pass: a block of rows
stays in the near cache while it is doubled in rate, bent, and halved again. Each number is made by the same operations in
the same order wherever the blocks fall.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

NUMBERS = 6144  # of one block: with its doubled rate it stays near
SLAB = 64  # channels of one block
REACH = 3  # rows on either side, of each filter
# sin(pi r) / r for r in -1/2..1/2, in powers of r squared; off by 3e-8 at most
C0, C1, C2, C3, C4, C5 = (
    np.float32((-1) ** n * math.pi ** (2 * n + 1) / math.factorial(2 * n + 1)) for n in range(6)
)


@intrinsic
def nearest(typing: Any, value: Any) -> Any:
    """The whole number nearest to a float32."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.call(builder.module.declare_intrinsic("llvm.rint", [ir.FloatType()]), arguments)

    return types.float32(types.float32), generate


@intrinsic
def rounded(typing: Any, out: Any, value: Any) -> Any:
    """A float32 as `out` holds it: as it is, or the bits of bfloat16, to even where it lies between."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        if signature.return_type == types.float32:
            return arguments[1]
        word = ir.IntType(32)
        whole, sixteen = builder.bitcast(arguments[1], word), ir.Constant(word, 16)
        odd = builder.and_(builder.lshr(whole, sixteen), ir.Constant(word, 1))
        nearer = builder.add(builder.add(whole, ir.Constant(word, 0x7FFF)), odd)
        return builder.trunc(builder.lshr(nearer, sixteen), ir.IntType(16))

    return out.dtype(out, types.float32), generate


@njit(nogil=True, inline="always")
def bend(x: Any, alpha: Any, inverse: Any) -> Any:
    """x + sin^2(pi alpha x) * inverse; alpha comes divided by pi."""
    turns = x * alpha
    r = turns - nearest(turns)
    q = r * r
    sine = r * (C0 + q * (C1 + q * (C2 + q * (C3 + q * (C4 + q * C5)))))
    return x + sine * sine * inverse


@njit(nogil=True, cache=True, fastmath={"contract"})
def activate(
    x: np.ndarray,  # float32 [rows, channels]
    scale: np.float32,  # of x
    alpha: np.ndarray,  # float32 [channels], divided by pi
    inverse: np.ndarray,  # float32 [channels], 1 / beta
    up: np.ndarray,  # float32 [12], times two
    down: np.ndarray,  # float32 [12]
    out: np.ndarray,  # uint16 (bfloat16 bits) or float32, as x
    segments: np.ndarray,  # int64 [n, 2]: start, length
    share: tuple[int, int],  # this worker's place among the workers that divide the rows
) -> None:
    channels = x.shape[1]
    slab = channels if channels <= 2 * SLAB else SLAB
    rows = max(8, NUMBERS // slab)
    seen = np.empty((rows + 4 * REACH) * slab, np.float32)
    even = np.empty((rows + 2 * REACH) * slab, np.float32)
    odd = np.empty((rows + 2 * REACH) * slab, np.float32)
    bent_alpha, bent_inverse = np.empty((rows + 2 * REACH) * slab, np.float32), np.empty((rows + 2 * REACH) * slab, np.float32)
    u0, u1, u2, u3, u4, u5, u6, u7, u8, u9, u10, u11 = (
        up[0], up[1], up[2], up[3], up[4], up[5], up[6], up[7], up[8], up[9], up[10], up[11]
    )  # fmt: skip
    d0, d1, d2, d3, d4, d5, d6, d7, d8, d9, d10, d11 = (
        down[0], down[1], down[2], down[3], down[4], down[5], down[6], down[7], down[8], down[9], down[10], down[11]
    )  # fmt: skip
    for low in range(0, channels, slab):
        wide = min(slab, channels - low)
        for row in range(rows + 2 * REACH):
            for c in range(wide):
                bent_alpha[row * wide + c] = alpha[low + c]
                bent_inverse[row * wide + c] = inverse[low + c]
        for segment in range(len(segments)):
            start, length = segments[segment, 0], segments[segment, 1]
            for begin in range(length * share[0] // share[1], length * (share[0] + 1) // share[1], rows):
                count = min(rows, length * (share[0] + 1) // share[1] - begin)
                for row in range(count + 4 * REACH):
                    place = start + min(max(begin + row - 2 * REACH, 0), length - 1)
                    for c in range(wide):
                        seen[row * wide + c] = x[place, low + c] * scale
                # even[0] is the doubled signal three rows before `begin`; seen[0] lies another three before
                for i in range((count + 2 * REACH) * wide):
                    a, b, c_, d = seen[i], seen[i + wide], seen[i + 2 * wide], seen[i + 3 * wide]
                    e, f, g = seen[i + 4 * wide], seen[i + 5 * wide], seen[i + 6 * wide]
                    first = a * u11 + b * u9 + c_ * u7 + d * u5 + e * u3 + f * u1
                    second = b * u10 + c_ * u8 + d * u6 + e * u4 + f * u2 + g * u0
                    even[i] = bend(first, bent_alpha[i], bent_inverse[i])
                    odd[i] = bend(second, bent_alpha[i], bent_inverse[i])
                for row in range(max(0, REACH - begin)):  # beyond the ends the doubled signal repeats its last sample
                    for c in range(wide):
                        even[row * wide + c] = odd[row * wide + c] = even[(REACH - begin) * wide + c]
                for row in range(length - begin + REACH, count + 2 * REACH):
                    for c in range(wide):
                        even[row * wide + c] = odd[row * wide + c] = odd[(length - begin + REACH - 1) * wide + c]
                for row in range(count):
                    target, base = start + begin + row, row * wide
                    for c in range(wide):
                        i = base + c
                        made = (
                            even[i + wide] * d1 + even[i + 2 * wide] * d3 + even[i + 3 * wide] * d5
                            + even[i + 4 * wide] * d7 + even[i + 5 * wide] * d9 + even[i + 6 * wide] * d11
                            + odd[i] * d0 + odd[i + wide] * d2 + odd[i + 2 * wide] * d4
                            + odd[i + 3 * wide] * d6 + odd[i + 4 * wide] * d8 + odd[i + 5 * wide] * d10
                        )  # fmt: skip
                        out[target, low + c] = rounded(out, made)


@njit(nogil=True, cache=True)
def carry(x: np.ndarray, scale: np.float32, out: np.ndarray, segments: np.ndarray) -> None:
    """out = x * scale. float32 -> float32 or bfloat16 bits; segments int64 [n, 3]: start in x, start in out, length."""
    for segment in range(len(segments)):
        source, target, length = segments[segment]
        for row in range(length):
            for c in range(x.shape[1]):
                out[target + row, c] = rounded(out, x[source + row, c] * scale)


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
