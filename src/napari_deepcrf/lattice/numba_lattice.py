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
from functools import cached_property, partial
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

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
MOST_NARROW_ROWS = 2**16
"""Rows of a chunk that 16 bits can number."""
CELL_LIMIT = 2**22
"""Largest elevated coordinate at which a cell is still exact in float32."""

FloatArray = NDArray[np.float32]
Int32Array = NDArray[np.int32]


@dataclass(frozen=True, kw_only=True, eq=False)
class NumbaLattice(Lattice):
    """A lattice with the rows of its chunks, R in all."""

    starts: tuple[int, ...]
    """First point of each chunk, and N."""
    row: NDArray[Any]
    """(N, d+1): the row of each of a point's vertices, counted from its chunk's first."""
    chunk_row: tuple[int, ...]
    """First row of each chunk, and R."""
    row_vertex: Int32Array
    """(R,): the vertex of each row."""
    vertex_row: Int32Array
    """(M+1,): where each vertex's run begins in ``rows``."""
    rows: Int32Array
    """(R,): rows grouped by vertex, ascending."""

    @cached_property
    def vertex(self) -> Tensor:
        vertex = np.empty(self.row.shape, np.int32)
        run_all(
            partial(
                name_vertices, self.row[points], self.of_chunk(self.row_vertex, c), vertex[points]
            )
            for c, points in enumerate(self.chunks())
        )
        return torch.from_numpy(vertex)

    def chunks(self) -> list[slice]:
        """The points of each chunk."""
        return [slice(a, b) for a, b in pairwise(self.starts)]

    def of_chunk(self, by_row: Any, chunk: int) -> Any:
        """The part (R_c, ...) of an array (R, ...) that belongs to a chunk."""
        return by_row[self.chunk_row[chunk] : self.chunk_row[chunk + 1]]

    def blur_order(self, *, reverse: bool) -> list[int]:
        """The axes in the order of the blur; see ``Kernels.blur``."""
        axes = list(range(self.dim + 1))
        passes = range(self.passes)
        order = [axis for p in passes for axis in (axes if p % 2 == 0 else axes[::-1])]
        return order[::-1] if reverse else order


def chunk_bounds(num_points: int, images: int = 1) -> tuple[int, ...]:
    """First point of each chunk, and N; a chunk holds points of one image only."""
    own = num_points // images
    count = max(1, round(own / CHUNK))
    return (*(own * image + own * c // count for image in range(images) for c in range(count)),
            num_points)  # fmt: skip


def build_lattice(planes: FloatArray, *, ring: bool, passes: int, images: int) -> NumbaLattice:
    """Embed points, planes (d, N) already divided by the kernel widths, chunk by chunk.

    Raises
    ------
    ValueError
        If the points spread over more cells than a key can number.
    """
    d, num_points = planes.shape
    numbers = _numbering(*bounds(planes), passes, images, num_points)
    starts = chunk_bounds(num_points, images)
    weight = np.empty((num_points, d + 1), np.float32)
    rank = np.empty((num_points, d + 1), np.int8)
    row, keys_of = _embed(planes, numbers, starts, np.uint16, weight, rank)
    if max(map(len, keys_of)) > MOST_NARROW_ROWS:  # rare: nearly every point on its own
        row, keys_of = _embed(planes, numbers, starts, np.int32, weight, rank)
    chunk_row = (0, *accumulate(map(len, keys_of)))
    row_vertex = np.empty(chunk_row[-1], np.int32)
    slots, keys, count = merge_chunks(np.concatenate(keys_of), row_vertex)
    if ring:
        slots, keys, count = add_ring(slots, keys, count, numbers.stride)
    vertex_row, rows = rows_by_vertex(row_vertex, count)
    neighbours = np.full((d + 1, count, 2), count, np.int32)
    found = slots, keys, numbers.stride, neighbours
    run_all(
        partial(find_neighbours, *found, first, min(first + PART, count))
        for first in range(0, count, PART)
    )
    return NumbaLattice(
        weight=torch.from_numpy(weight),
        rank=torch.from_numpy(rank),
        neighbours=torch.from_numpy(neighbours),
        passes=passes,
        backend="numba",
        starts=starts,
        row=row,
        chunk_row=chunk_row,
        row_vertex=row_vertex,
        vertex_row=vertex_row,
        rows=rows,
    )


class _Numbering(NamedTuple):
    """How points map to keys."""

    scale: tuple[Any, ...]
    """(d,) floats, from features to the lattice."""
    stride: tuple[Any, ...]
    """(d,) integers."""
    offset: int
    image_size: int
    """The keys of one image."""
    points_per_image: int


def _embed(
    planes: FloatArray,
    numbers: _Numbering,
    starts: tuple[int, ...],
    row_type: type,
    weight: FloatArray,
    rank: NDArray[np.int8],
) -> tuple[NDArray[Any], list[Any]]:
    """Fill weight and rank (N, d+1); returns rows (N, d+1) and the keys by row of each chunk."""
    row: NDArray[Any] = np.empty(weight.shape, row_type)
    keys_of: list[Any] = [None] * (len(starts) - 1)

    def embed(chunk: int) -> None:
        first, last = starts[chunk : chunk + 2]
        offset: Any = np.int64(
            numbers.offset + first // numbers.points_per_image * numbers.image_size
        )
        keys_of[chunk] = intern_points(
            planes, first, last, numbers.scale, numbers.stride, offset, row, weight, rank
        )

    run_all(partial(embed, chunk) for chunk in range(len(keys_of)))
    return row, keys_of


def _numbering(
    lowest: NDArray[Any], highest: NDArray[Any], passes: int, images: int, num_points: int
) -> _Numbering:
    """How features within given bounds (d,) map to keys.

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
        if size * images >= KEY_LIMIT:
            raise ValueError(_too_small("too many cells"))
    return _Numbering(tuple(scale), tuple(stride), offset, size, num_points // images)


def _too_small(what: str) -> str:
    return f"features: kernel widths too small, lattice keys leave their range ({what})"
