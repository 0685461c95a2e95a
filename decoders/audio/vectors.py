"""Step 7, kernels. Sixteen float32 at a time, written as LLVM vectors: what numba's loops leave to luck. Addresses in bytes.

On a CPU with shorter registers LLVM splits each into as many as it takes.
"""

from __future__ import annotations

import math
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

LANES = 16
WORD, LONG, FLOAT = ir.IntType(32), ir.IntType(64), ir.FloatType()
VECTOR = ir.VectorType(FLOAT, LANES)
BOOLEANS = ir.VectorType(ir.IntType(1), LANES)
# sin(pi r) / r for r in -1/2..1/2, in powers of r squared; off by 6e-8 at most
SINE = [(-1) ** n * math.pi ** (2 * n + 1) / math.factorial(2 * n + 1) for n in range(6)]


def function(builder: ir.IRBuilder, name: str, result: Any, arguments: list[Any]) -> Any:
    return builder.module.globals.get(name) or ir.Function(builder.module, ir.FunctionType(result, arguments), name)


def constant(value: float) -> Any:
    return ir.Constant(VECTOR, [value] * LANES)


def place(builder: Any, address: Any, offset: Any, kind: Any = VECTOR) -> Any:
    return builder.inttoptr(builder.add(address, offset), kind.as_pointer())


def load(builder: Any, address: Any, offset: Any) -> Any:
    return builder.load(place(builder, address, offset), align=4)


def spread(builder: Any, value: Any) -> Any:
    """The value in every lane."""
    kind = ir.VectorType(value.type, LANES)
    single = builder.insert_element(ir.Constant(kind, ir.Undefined), value, ir.Constant(WORD, 0))
    order = ir.Constant(ir.VectorType(WORD, LANES), [0] * LANES)
    return builder.shuffle_vector(single, ir.Constant(kind, ir.Undefined), order)


def first(builder: Any, count: Any) -> Any:
    """A mask of the first `count` lanes."""
    lanes = ir.Constant(ir.VectorType(LONG, LANES), list(range(LANES)))
    return builder.icmp_signed("<", lanes, spread(builder, count))


def multiply_add(builder: Any, a: Any, b: Any, c: Any) -> Any:
    return builder.call(function(builder, "llvm.fma.v16f32", VECTOR, [VECTOR] * 3), [a, b, c])


def multiply_add_pairs(builder: Any, a: Any, b: Any, c: Any) -> Any:
    """c + the products of the two bfloat16 in each 32 bits of `a` (words) and `b` (their bits as floats)."""
    kind = ir.FunctionType(VECTOR, [VECTOR, a.type, a.type])
    instruction = ir.InlineAsm(kind, "vdpbf16ps $3, $2, $0", "=v,0,v,v", side_effect=False)  # LLVM's binding has no bfloat16
    return builder.call(instruction, [c, builder.bitcast(b, a.type), a])


def filtered(builder: Any, pairs: list[tuple[Any, Any]]) -> Any:
    total = builder.fmul(*pairs[0])
    for value, tap in pairs[1:]:
        total = multiply_add(builder, value, tap, total)
    return total


def bent(builder: Any, x: Any, alpha: Any, inverse: Any) -> Any:
    """x + sin^2(pi alpha x) * inverse"""
    turns = builder.fmul(x, alpha)
    whole = builder.call(function(builder, "llvm.rint.v16f32", VECTOR, [VECTOR]), [turns])
    r = builder.fsub(turns, whole)
    q = builder.fmul(r, r)
    sine = constant(SINE[-1])
    for value in reversed(SINE[:-1]):
        sine = multiply_add(builder, sine, q, constant(value))
    sine = builder.fmul(sine, r)
    return multiply_add(builder, builder.fmul(sine, sine), inverse, x)


@intrinsic
def double(typing: Any, seen: Any, stride: Any, alpha: Any, inverse: Any, even: Any, odd: Any, taps: Any) -> Any:
    """From seven rows of `seen`, `stride` bytes apart: the two bent numbers that lie around the fourth."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        seen, stride, alpha, inverse, even, odd, taps = arguments
        f = [spread(builder, builder.extract_value(taps, n)) for n in range(12)]
        zero = ir.Constant(LONG, 0)
        x = [load(builder, seen, builder.mul(stride, ir.Constant(LONG, n))) for n in range(7)]
        a, b = load(builder, alpha, zero), load(builder, inverse, zero)
        before = filtered(builder, [(x[n], f[11 - 2 * n]) for n in range(6)])
        after = filtered(builder, [(x[n + 1], f[10 - 2 * n]) for n in range(6)])
        builder.store(bent(builder, before, a, b), place(builder, even, zero), align=4)
        builder.store(bent(builder, after, a, b), place(builder, odd, zero), align=4)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 6, types.UniTuple(types.float32, 12)), generate


@intrinsic
def halve(typing: Any, even: Any, odd: Any, stride: Any, out: Any, at: Any, count: Any, taps: Any) -> Any:
    """Numbers `at`.. (`count` of them, at most 16) of the array `out`, from six rows each of `even` and `odd`."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        even, odd, stride, _, at, count, taps = arguments
        f = [spread(builder, builder.extract_value(taps, n)) for n in range(12)]
        steps = [builder.mul(stride, ir.Constant(LONG, n)) for n in range(7)]
        pairs = [(load(builder, even, steps[n + 1]), f[2 * n + 1]) for n in range(6)]
        pairs += [(load(builder, odd, steps[n]), f[2 * n]) for n in range(6)]
        save(builder, filtered(builder, pairs), at, count, signature.args[3].dtype)
        return context.get_dummy_value()

    integers = [types.int64] * 3
    return types.void(*integers, out, types.int64, types.int64, types.UniTuple(types.float32, 12)), generate


def save(builder: Any, value: Any, address: Any, count: Any, dtype: Any) -> None:
    """Writes the first `count` lanes, as they are or (uint16) rounded to the bits of bfloat16, to even between two."""
    kind, name = VECTOR, "llvm.masked.store.v16f32.p0"
    if dtype == types.uint16:
        words = ir.VectorType(WORD, LANES)
        whole, sixteen = builder.bitcast(value, words), ir.Constant(words, [16] * LANES)
        odd = builder.and_(builder.lshr(whole, sixteen), ir.Constant(words, [1] * LANES))
        nearer = builder.add(builder.add(whole, ir.Constant(words, [0x7FFF] * LANES)), odd)
        kind, name = ir.VectorType(ir.IntType(16), LANES), "llvm.masked.store.v16i16.p0"
        value = builder.trunc(builder.lshr(nearer, sixteen), kind)
    pointer = builder.inttoptr(address, kind.as_pointer())
    arguments = [value, pointer, ir.Constant(WORD, 2), first(builder, count)]
    builder.call(function(builder, name, ir.VoidType(), [kind, pointer.type, WORD, BOOLEANS]), arguments)


@intrinsic
def write(typing: Any, source: Any, scale: Any, out: Any, at: Any, count: Any) -> Any:
    """Numbers at the address `at` of the array `out` (`count` of them, at most 16) = those at `source` times `scale`."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        source, scale, _, at, count = arguments
        value = builder.fmul(masked(builder, source, count), spread(builder, scale))
        save(builder, value, at, count, signature.args[2].dtype)
        return context.get_dummy_value()

    return types.void(types.int64, types.float32, out, types.int64, types.int64), generate


def masked(builder: Any, address: Any, count: Any) -> Any:
    """The first `count` numbers at the address; zeros in the other lanes, which are not read."""
    pointer = builder.inttoptr(address, VECTOR.as_pointer())
    kind = function(builder, "llvm.masked.load.v16f32.p0", VECTOR, [pointer.type, WORD, BOOLEANS, VECTOR])
    return builder.call(kind, [pointer, ir.Constant(WORD, 4), first(builder, count), constant(0.0)])


@intrinsic
def settle(typing: Any, target: Any, made: Any, bias: Any, first_: Any, second: Any, wide: Any) -> Any:
    """`wide` (at most 16) numbers at `target` = those at `made` + `bias` + `first_` + `second`; all are addresses."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        target, *sources, wide = arguments
        total, *others = [masked(builder, source, wide) for source in sources]
        for other in others:
            total = builder.fadd(total, other)
        save(builder, total, target, wide, types.float32)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 6), generate
