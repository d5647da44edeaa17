"""Lattices as the fused passes read them: pixels in chunks, each with rows of its own.

The points are cut into chunks of fixed size. Each chunk has *rows* of its own, one for every
vertex that its points touch, numbered in order of first appearance. Points read and write only
the rows of their chunk; rows are summed by vertex in a fixed order. So chunks can run on any
number of threads with results that do not depend on it, and a large image works on as little
memory at a time as a small one.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, partial
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_deepcrf.lattice.embedding import axis_scales
from napari_deepcrf.lattice.keys import Numbering, numbering
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
"""About how many points a chunk has. The same on every machine, as sums run chunk by chunk."""
PART = 8192
"""Vertices whose neighbours one task looks up."""
MOST_NARROW_ROWS = 2**16
"""Rows of a chunk that 16 bits can number."""

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
    lowest, highest = (bound.tolist() for bound in bounds(planes))
    cells = numbering(lowest, highest, passes, images=images)
    starts = chunk_bounds(num_points, images)
    weight = np.empty((num_points, d + 1), np.float32)
    rank = np.empty((num_points, d + 1), np.int8)
    embedded = planes, cells, passes, starts
    row, keys_of = _embed(*embedded, np.uint16, weight, rank)
    if max(map(len, keys_of)) > MOST_NARROW_ROWS:  # rare: nearly every point on its own
        row, keys_of = _embed(*embedded, np.int32, weight, rank)
    chunk_row = (0, *accumulate(map(len, keys_of)))
    row_vertex = np.empty(chunk_row[-1], np.int32)
    slots, keys, count = merge_chunks(np.concatenate(keys_of), row_vertex)
    stride = _compiled_stride(cells)
    if ring:
        slots, keys, count = add_ring(slots, keys, count, stride)
    vertex_row, rows = rows_by_vertex(row_vertex, count)
    neighbours = np.full((d + 1, count, 2), count, np.int32)
    found = slots, keys, stride, neighbours
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


def _embed(
    planes: FloatArray,
    cells: Numbering,
    passes: int,
    starts: tuple[int, ...],
    row_type: type,
    weight: FloatArray,
    rank: NDArray[np.int8],
) -> tuple[NDArray[Any], list[Any]]:
    """Fill weight and rank (N, d+1); returns rows (N, d+1) and the keys by row of each chunk."""
    d, num_points = planes.shape
    points_per_image = num_points // cells.images
    scale = tuple((np.array(axis_scales(d)) * feature_scale(passes)).astype(np.float32))
    stride = _compiled_stride(cells)
    row: NDArray[Any] = np.empty(weight.shape, row_type)
    keys_of: list[Any] = [None] * (len(starts) - 1)

    def embed(chunk: int) -> None:
        first, last = starts[chunk : chunk + 2]
        offset: Any = np.int64(cells.offset + first // points_per_image * cells.image_stride)
        keys_of[chunk] = intern_points(
            planes, first, last, scale, stride, offset, row, weight, rank
        )

    run_all(partial(embed, chunk) for chunk in range(len(keys_of)))
    return row, keys_of


def _compiled_stride(cells: Numbering) -> tuple[Any, ...]:
    """(d,) 64-bit integers, as the kernels are compiled for."""
    return tuple(map(np.int64, cells.stride))
