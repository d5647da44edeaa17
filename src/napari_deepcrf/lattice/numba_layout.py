"""Several lattices over one image, laid out for passes that keep to the cache.

The pixels are cut into chunks of fixed size. Each chunk has *rows* of its own, one for every
vertex (of any of the lattices) that its pixels touch, numbered in order of first appearance.
Pixels read and write only the rows of their chunk; rows are then summed by vertex in a fixed
order. So chunks can run on any number of threads with results that do not depend on it, and a
large image works on as little memory at a time as a small one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from napari_deepcrf.lattice.lattice import Lattice
from napari_deepcrf.lattice.numba_build import rows_by_vertex

CHUNK = 32768

Int32Array = NDArray[np.int32]
Int64Array = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Layout:
    """Rows of chunks: N pixels, K vertices a pixel over all lattices, R rows, M vertices."""

    lattices: tuple[Lattice, ...]
    pixel_start: tuple[int, ...]
    """First pixel of each chunk, and N."""
    row_start: tuple[int, ...]
    """First row of each chunk, and R."""
    row: Int32Array
    """(N, K): the row of each of a pixel's vertices, counted from its chunk's first."""
    vertex: Int32Array
    """(R,): the vertex of each row; lattice m's vertices are numbered from vertex_start[m]."""
    vertex_start: tuple[int, ...]
    """First vertex of each lattice, and M."""
    neighbours: tuple[Int32Array, ...]
    """Each lattice's (d+1, M_m, 2), in the common numbering; M where there is none."""
    first_row: Int32Array
    """(M+1,): where each vertex's run begins in ``rows``."""
    rows: Int32Array
    """(R,): rows grouped by vertex, ascending."""

    @property
    def num_chunks(self) -> int:
        return len(self.pixel_start) - 1

    def blur_order(self, m: int, *, reverse: bool) -> list[int]:
        """The axes of lattice m in the order of its blur; see ``Kernels.blur``."""
        axes = list(range(self.lattices[m].dim + 1))
        passes = range(self.lattices[m].passes)
        order = [axis for p in passes for axis in (axes if p % 2 == 0 else axes[::-1])]
        return order[::-1] if reverse else order

    def of_chunk(self, by_row: Any, chunk: int) -> Any:
        """The part (R_c, ...) of an array (R, ...) that belongs to a chunk."""
        return by_row[self.row_start[chunk] : self.row_start[chunk + 1]]

    @staticmethod
    def of(lattices: Sequence[Lattice]) -> Layout:
        num_points = lattices[0].num_points
        count = max(1, round(num_points / CHUNK))
        pixel_start = tuple(num_points * c // count for c in range(count + 1))
        vertex_start = tuple(np.cumsum([0, *(m.num_vertices for m in lattices)]).tolist())
        together = np.concatenate(
            [m.vertex.numpy() + first for m, first in zip(lattices, vertex_start, strict=False)], 1
        )
        row, vertex, row_start = _number_rows(together, vertex_start[-1], np.array(pixel_start))
        first_row, rows = rows_by_vertex(vertex[:, None], vertex_start[-1])
        return Layout(
            lattices=tuple(lattices),
            pixel_start=pixel_start,
            row_start=tuple(row_start.tolist()),
            row=row,
            vertex=vertex,
            vertex_start=vertex_start,
            neighbours=tuple(map(_renumbered, lattices, vertex_start, repeat(vertex_start[-1]))),
            first_row=first_row,
            rows=rows,
        )


def _renumbered(lattice: Lattice, first: int, missing: int) -> Int32Array:
    own = lattice.neighbours.numpy()
    return np.where(own == lattice.num_vertices, missing, own + first).astype(np.int32)


@njit(nogil=True, cache=True)
def _number_rows(
    vertex: Int32Array, num_vertices: int, pixel_start: Int64Array
) -> tuple[Int32Array, Int32Array, Int64Array]:
    """Vertices (N, K) to rows by chunk: row (N, K), vertex (R,), row_start (chunks+1,)."""
    row = np.empty(vertex.shape, np.int32)
    seen_in = np.full(num_vertices, -1, np.int32)
    named = np.empty(num_vertices, np.int32)
    members = np.empty(2 * num_vertices, np.int32)
    row_start = np.zeros(pixel_start.shape[0], np.int64)
    count = np.int64(0)
    for chunk in range(pixel_start.shape[0] - 1):
        first = count
        for i in range(pixel_start[chunk], pixel_start[chunk + 1]):
            if count + vertex.shape[1] > members.shape[0]:
                members = _longer(members)
            for k in range(vertex.shape[1]):
                v = vertex[i, k]
                if seen_in[v] != chunk:
                    seen_in[v] = chunk
                    named[v] = count - first
                    members[count] = v
                    count += 1
                row[i, k] = named[v]
        row_start[chunk + 1] = count
    return row, members[:count].copy(), row_start


@njit(nogil=True, cache=True)
def _longer(array: Int32Array) -> Any:
    grown = np.empty(2 * array.shape[0] + 64, np.int32)
    grown[: array.shape[0]] = array
    return grown
