"""Lattices as the fused passes read them: pixels in chunks, each with rows of its own.

The points are cut into chunks of fixed size. Each chunk has *rows* of its own, one for every
vertex that its points touch, numbered in order of first appearance. Points read and write only
the rows of their chunk; rows are summed by vertex in a fixed order. So chunks can run on any
number of threads with results that do not depend on it, and a large image works on as little
memory at a time as a small one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from napari_deepcrf.lattice.embedding import axis_scales
from napari_deepcrf.lattice.lattice import Lattice, feature_scale
from napari_deepcrf.lattice.numba_build import (
    add_ring,
    bounds,
    find_neighbours,
    intern_points,
    merge_chunks,
    name_vertices,
    rows_by_vertex,
)
from napari_deepcrf.lattice.numba_pool import run_all

CHUNK = 32768
PART = 8192
"""Vertices whose neighbours one task looks up."""
KEY_LIMIT = 2**62
CELL_LIMIT = 2**22
"""Largest elevated coordinate at which a cell is still exact in float32."""

FloatArray = NDArray[np.float32]
Int32Array = NDArray[np.int32]


@dataclass(frozen=True, kw_only=True, eq=False)
class NumbaLattice(Lattice):
    """A lattice with the rows of its chunks, R in all."""

    row: Int32Array
    """(N, d+1): the row of each of a point's vertices, counted from its chunk's first."""
    chunk_row: tuple[int, ...]
    """First row of each chunk, and R."""
    row_vertex: Int32Array
    """(R,): the vertex of each row."""
    vertex_row: Int32Array
    """(M+1,): where each vertex's run begins in ``rows``."""
    rows: Int32Array
    """(R,): rows grouped by vertex, ascending."""

    def blur_order(self, *, reverse: bool) -> list[int]:
        """The axes in the order of the blur; see ``Kernels.blur``."""
        axes = list(range(self.dim + 1))
        passes = range(self.passes)
        order = [axis for p in passes for axis in (axes if p % 2 == 0 else axes[::-1])]
        return order[::-1] if reverse else order

    def of_chunk(self, by_row: Any, chunk: int) -> Any:
        """The part (R_c, ...) of an array (R, ...) that belongs to a chunk."""
        return by_row[self.chunk_row[chunk] : self.chunk_row[chunk + 1]]


def chunk_bounds(num_points: int) -> tuple[int, ...]:
    """First point of each chunk, and N."""
    count = max(1, round(num_points / CHUNK))
    return tuple(num_points * c // count for c in range(count + 1))


def build_lattice(points: FloatArray, *, ring: bool, passes: int) -> NumbaLattice:
    """Embed points (N, d), already divided by the kernel widths, chunk by chunk.

    Raises
    ------
    ValueError
        If the points spread over more cells than a key can number.
    """
    scale, stride, offset = _numbering(*bounds(points), passes)
    starts = chunk_bounds(len(points))
    shape = (points.shape[0], points.shape[1] + 1)
    row, vertex, weight = (np.empty(shape, t) for t in (np.int32, np.int32, np.float32))
    rank = np.empty(shape, np.int8)
    chunk_keys: list[Any] = [None] * (len(starts) - 1)

    def embed(chunk: int) -> None:
        here = slice(*starts[chunk : chunk + 2])
        out = row[here], weight[here], rank[here]
        chunk_keys[chunk] = intern_points(points[here], scale, stride, offset, *out)

    run_all(partial(embed, chunk) for chunk in range(len(chunk_keys)))
    chunk_row = np.cumsum([0, *map(len, chunk_keys)])
    row_vertex = np.empty(chunk_row[-1], np.int32)
    slots, keys, count = merge_chunks(np.concatenate(chunk_keys), row_vertex)
    run_all(
        partial(name_vertices, row[a:b], row_vertex[first:last], vertex[a:b])
        for a, b, first, last in zip(starts, starts[1:], chunk_row, chunk_row[1:], strict=False)
    )
    if ring:
        slots, keys, count = add_ring(slots, keys, count, stride)
    vertex_row, rows = rows_by_vertex(row_vertex, count)
    neighbours = np.full((points.shape[1] + 1, count, 2), count, np.int32)
    run_all(
        partial(find_neighbours, slots, keys, stride, neighbours, first, min(first + PART, count))
        for first in range(0, count, PART)
    )
    return NumbaLattice(
        vertex=torch.from_numpy(vertex),
        weight=torch.from_numpy(weight),
        rank=torch.from_numpy(rank),
        neighbours=torch.from_numpy(neighbours),
        passes=passes,
        backend="numba",
        row=row,
        chunk_row=tuple(chunk_row.tolist()),
        row_vertex=row_vertex,
        vertex_row=vertex_row,
        rows=rows,
    )


def _numbering(
    lowest: NDArray[Any], highest: NDArray[Any], passes: int
) -> tuple[tuple[Any, ...], tuple[Any, ...], Any]:
    """How features within given bounds (d,) map to keys: scale (d), stride (d) and offset.

    Raises
    ------
    ValueError
        If the features spread over more cells than a key can number.
    """
    d = len(lowest)
    scale = (np.array(axis_scales(d)) * feature_scale(passes)).astype(np.float32)
    low, high = lowest * scale.astype(float), highest * scale.astype(float)
    stride, size, offset = [], d + 1, 0
    for j in range(d):
        below = low[j:].sum() - (j * high[j - 1] if j else 0.0)
        above = high[j:].sum() - (j * low[j - 1] if j else 0.0)
        if max(-below, above) > CELL_LIMIT:
            raise ValueError(_too_small(f"a coordinate of {max(-below, above):.3g}"))
        # Two cells for rounding and wrapping, two for the ring and its neighbours.
        first, last = math.floor(below / (d + 1)) - 4, math.ceil(above / (d + 1)) + 4
        stride.append(np.int64(size))
        offset -= first * size
        size *= last - first
        if size >= KEY_LIMIT:
            raise ValueError(_too_small("too many cells"))
    return tuple(scale), tuple(stride), np.int64(offset)


def _too_small(what: str) -> str:
    return f"features: kernel widths too small, lattice keys leave their range ({what})"
