"""Transposing small blocks in SIMD registers, between planes of labels and rows of pixels."""

from __future__ import annotations

from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba import types

from napari_deepcrf.lattice.numba_simd import BLOCK, INT, VectorType, in_kernels, pointers


@in_kernels
def transpose_block(
    _context: Any, source: Any, at: Any, step: Any, out: Any, out_at: Any, out_step: Any
) -> Any:
    """Copy 8 x 8 numbers transposed, from rows ``step`` apart to rows ``out_step`` apart."""
    vector = VectorType(BLOCK)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        places: list[Any] = []
        for array, first, gap in ((0, 1, 2), (3, 4, 5)):
            index, distance = (
                context.cast(builder, args[n], signature.args[n], types.intp) for n in (first, gap)
            )
            for _ in range(BLOCK):
                pair = (signature.args[array], args[array])
                places += pointers(context, builder, pair, (types.intp, index), vector)
                index = builder.add(index, distance)
        rows = [builder.load(place, align=4) for place in places[:BLOCK]]
        for row, place in zip(_transposed(builder, rows), places[BLOCK:], strict=True):
            builder.store(row, place, align=4)
        return context.get_dummy_value()

    return types.void(source, at, step, out, out_at, out_step), generate


def _transposed(builder: Any, rows: list[Any]) -> list[Any]:
    """Transpose 8 vectors of 8 by exchanging quarters, pairs and single numbers."""
    for gap in (4, 2, 1):
        low = [n for n in range(BLOCK) if not n & gap]
        keep = [n if not n & gap else BLOCK + n - gap for n in range(BLOCK)]
        take = [n + gap if not n & gap else BLOCK + n for n in range(BLOCK)]
        swapped = list(rows)
        for n in low:
            for place, lanes in ((n, keep), (n + gap, take)):
                mask = ir.Constant(ir.VectorType(INT, BLOCK), lanes)
                swapped[place] = builder.shuffle_vector(rows[n], rows[n + gap], mask)
        rows = swapped
    return rows
