"""Powers of two of the vectors of ``numba_simd``, for the softmax."""

from __future__ import annotations

from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba import njit
from numba.core import cgutils

from napari_deepcrf.lattice.numba_simd import (
    INT,
    Width,
    by_block,
    fill,
    fma,
    in_kernels,
    multiply,
    subtract,
)


def _llvm_round(builder: Any, x: Any) -> Any:
    kind = ir.FunctionType(x.type, [x.type])
    name = f"llvm.rint.v{x.type.count}f32"
    function = cgutils.get_or_insert_function(  # type: ignore[no-untyped-call]
        builder.module, kind, name
    )
    return builder.call(function, [x])


def _llvm_power_of_two(builder: Any, x: Any) -> Any:
    """2^x of whole numbers, written straight into the exponent's bits."""
    whole = ir.VectorType(INT, x.type.count)
    exponent = builder.add(builder.fptosi(x, whole), ir.Constant(whole, [127] * x.type.count))
    bits = builder.shl(exponent, ir.Constant(whole, [23] * x.type.count))
    return builder.bitcast(bits, x.type)


@in_kernels
def _round(_context: Any, x: Any) -> Any:
    return by_block(_llvm_round, x)


@in_kernels
def _power_of_two(_context: Any, x: Any) -> Any:
    return by_block(_llvm_power_of_two, x)


# 2^r for |r| <= 1/2: the polynomial of degree 5 with the least largest relative error, 8e-8
# before rounding, 2.4e-7 in float32.
_C = (1.0000000717, 0.6931469671, 0.2402211972, 0.0555071329, 0.0096755413, 0.0013276467)
_C0, _C1, _C2, _C3, _C4, _C5 = _C


@njit(inline="always")
def exp2(width: Width, x: Any) -> Any:
    """The power 2^x for -126 <= x < 128."""
    whole = _round(x)
    r = subtract(x, whole)
    y = fma(fill(width, _C5), r, fill(width, _C4))
    y = fma(y, r, fill(width, _C3))
    y = fma(y, r, fill(width, _C2))
    y = fma(y, r, fill(width, _C1))
    y = fma(y, r, fill(width, _C0))
    return multiply(y, _power_of_two(whole))
