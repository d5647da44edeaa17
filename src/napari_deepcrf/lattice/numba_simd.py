"""A float32 vector of 4n lanes for Numba kernels, kept in SIMD registers.

The number of lanes is a compile-time constant that travels as the length of a tuple: a *width*
``(0,) * n`` stands for 4n lanes. Vectors are cut into blocks of 8 lanes (one 256-bit register)
and at most one of 4; LLVM turns each operation on a block into one instruction where the machine
has it, and into several where it has not. Products and sums may be contracted and reordered.

These functions exist only inside compiled code. ``array`` is a C-contiguous float32 array of any
number of dimensions, ``at`` a flat index in it; nothing is bounds-checked.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.core.datamodel import models
from numba.extending import intrinsic, register_jitable, register_model
from numpy.typing import NDArray

FLOAT = ir.FloatType()
INT = ir.IntType(32)
FAST = ("contract", "nsz", "reassoc")
"""What LLVM may do: contract products with sums, forget the sign of a zero, reorder sums."""
BLOCK = 8
"""Lanes of one 256-bit register."""
LINE = 64
"""Bytes of a cache line."""
LOG2_E = np.float32(1.4426950408889634)

FloatArray = NDArray[np.float32]
Width = tuple[int, ...]


def in_kernels(define: Callable[..., Any]) -> Any:
    """Numba's ``intrinsic``, in types: ``define`` returns a signature and what generates its code.

    Kernels call the result with the arguments of ``define`` but the first.
    """
    return intrinsic(define)


def width_for(channels: int) -> Width:
    """The width that holds so many channels: 4 lanes, or whole blocks.

    Kernels are compiled for each width apart: the fewer there are, the fewer waits.
    """
    return (0,) if channels <= 4 else (0, 0) * (-(-channels // BLOCK))


@register_jitable
def padded(width: Width) -> int:
    """The number of lanes of a width."""
    return 4 * len(width)


def aligned_empty(*shape: int) -> FloatArray:
    """An uninitialised array that starts on a cache line, so that fewer vectors cross two."""
    size = 4 * math.prod(shape)
    raw = np.empty(size + LINE, np.uint8)
    first = -raw.ctypes.data % LINE
    array: FloatArray = raw[first : first + size].view(np.float32).reshape(shape)
    return array


def aligned_zeros(*shape: int) -> FloatArray:
    """The same, of zeros."""
    array = aligned_empty(*shape)
    array.fill(0)
    return array


class VectorType(types.Type):
    """Numba's type of a vector; as LLVM value a struct of blocks."""

    def __init__(self, lanes: int) -> None:
        self.blocks = (BLOCK,) * (lanes // BLOCK) + ((4,) if lanes % BLOCK else ())
        super().__init__(name=f"Float32Vector({lanes})")

    @property
    def llvm(self) -> Any:
        """The LLVM type of a value."""
        return ir.LiteralStructType([ir.VectorType(FLOAT, n) for n in self.blocks])


@register_model(VectorType)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, vector: VectorType) -> None:
        super().__init__(manager, vector, vector.llvm)  # type: ignore[no-untyped-call]


def _vector_of(width: Any) -> VectorType:
    return VectorType(4 * len(width))


def _pack(builder: Any, vector: VectorType, blocks: list[Any]) -> Any:
    value = ir.Constant(vector.llvm, ir.Undefined)
    for number, block in enumerate(blocks):
        value = builder.insert_value(value, block, number)
    return value


def _blocks(builder: Any, vector: VectorType, value: Any) -> list[Any]:
    return [builder.extract_value(value, number) for number in range(len(vector.blocks))]


def pointers(context: Any, builder: Any, array: Any, at: Any, vector: VectorType) -> Iterator[Any]:
    """Pointers to the blocks at ``array[at:]``; both are pairs of Numba type and LLVM value."""
    data = context.make_array(array[0])(context, builder, array[1]).data
    index = context.cast(builder, at[1], at[0], types.intp)
    offset = 0
    for lanes in vector.blocks:
        place = builder.gep(data, [builder.add(index, ir.Constant(index.type, offset))])
        yield builder.bitcast(place, ir.VectorType(FLOAT, lanes).as_pointer())
        offset += lanes


@in_kernels
def load(_context: Any, width: Any, array: Any, at: Any) -> Any:
    """The vector at ``array[at:]``."""
    vector = _vector_of(width)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        _, array, at = zip(signature.args, args, strict=True)
        places = pointers(context, builder, array, at, vector)
        return _pack(builder, vector, [builder.load(place, align=4) for place in places])

    return vector(width, array, at), generate


@in_kernels
def item(_context: Any, array: Any, at: Any) -> Any:
    """The number at flat index ``at`` of an array of any type, without a sign check."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        index = context.cast(builder, args[1], signature.args[1], types.intp)
        return builder.load(builder.gep(data, [index]))

    return array.dtype(array, at), generate


@in_kernels
def store(_context: Any, array: Any, at: Any, x: Any) -> Any:
    """Write x to ``array[at:]``."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        array, at, (_, value) = zip(signature.args, args, strict=True)
        places = pointers(context, builder, array, at, x)
        for place, block in zip(places, _blocks(builder, x, value), strict=True):
            builder.store(block, place, align=4)
        return context.get_dummy_value()

    return types.void(array, at, x), generate


@in_kernels
def fill(_context: Any, width: Any, number: Any) -> Any:
    """The vector whose lanes all hold one number."""
    vector = _vector_of(width)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        scalar = context.cast(builder, args[1], signature.args[1], types.float32)
        blocks = []
        for lanes in vector.blocks:
            empty = ir.Constant(ir.VectorType(FLOAT, lanes), ir.Undefined)
            first = builder.insert_element(empty, scalar, ir.Constant(INT, 0))
            zeros = ir.Constant(ir.VectorType(INT, lanes), [0] * lanes)
            blocks.append(builder.shuffle_vector(first, empty, zeros))
        return _pack(builder, vector, blocks)

    return vector(width, number), generate


def by_block(operation: Callable[..., Any], *args: Any) -> Any:
    """The typing of an operation that takes and gives vectors, block by block."""
    vector = args[0]

    def generate(_context: Any, builder: Any, _signature: Any, values: Any) -> Any:
        columns = zip(*(_blocks(builder, vector, value) for value in values), strict=True)
        return _pack(builder, vector, [operation(builder, *column) for column in columns])

    return vector(*args), generate


def _llvm_max(builder: Any, x: Any, y: Any) -> Any:
    return builder.select(builder.fcmp_ordered(">", x, y, flags=("nsz",)), x, y)


def _llvm_add(builder: Any, x: Any, y: Any) -> Any:
    return builder.fadd(x, y, flags=FAST)


def _llvm_fma(builder: Any, x: Any, y: Any, z: Any) -> Any:
    return builder.fadd(builder.fmul(x, y, flags=FAST), z, flags=FAST)


@in_kernels
def fma(_context: Any, x: Any, y: Any, z: Any) -> Any:
    """The sum x y + z."""
    return by_block(_llvm_fma, x, y, z)


@in_kernels
def add(_context: Any, x: Any, y: Any) -> Any:
    """The sum x + y."""
    return by_block(_llvm_add, x, y)


@in_kernels
def subtract(_context: Any, x: Any, y: Any) -> Any:
    """The difference x - y."""
    return by_block(lambda builder, a, b: builder.fsub(a, b, flags=FAST), x, y)


@in_kernels
def multiply(_context: Any, x: Any, y: Any) -> Any:
    """The product x y."""
    return by_block(lambda builder, a, b: builder.fmul(a, b, flags=FAST), x, y)


@in_kernels
def maximum(_context: Any, x: Any, y: Any) -> Any:
    """The larger of x and y, lane by lane."""
    return by_block(_llvm_max, x, y)


def _reduction(combine: Callable[[Any, Any, Any], Any], x: VectorType) -> Any:
    """The typing of a reduction to one number: blocks onto each other, then halves."""

    def halves(builder: Any, block: Any) -> Any:
        count = block.type.count
        empty = ir.Constant(block.type, ir.Undefined)
        parts = []
        for first in (0, count // 2):
            lanes = list(range(first, first + count // 2))
            mask = ir.Constant(ir.VectorType(INT, count // 2), lanes)
            parts.append(builder.shuffle_vector(block, empty, mask))
        return combine(builder, *parts)

    def generate(_context: Any, builder: Any, _signature: Any, values: Any) -> Any:
        blocks = _blocks(builder, x, values[0])
        total = blocks[0]
        for block in blocks[1:]:
            while block.type.count < total.type.count:
                total = halves(builder, total)
            total = combine(builder, total, block)
        while total.type.count > 1:
            total = halves(builder, total)
        return builder.extract_element(total, ir.Constant(INT, 0))

    return types.float32(x), generate


@in_kernels
def largest(_context: Any, x: Any) -> Any:
    """The largest lane."""
    return _reduction(_llvm_max, x)


@in_kernels
def total(_context: Any, x: Any) -> Any:
    """The sum of the lanes."""
    return _reduction(_llvm_add, x)
