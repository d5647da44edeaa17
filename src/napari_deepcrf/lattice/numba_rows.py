"""What a lattice holds during mean field, and the step from splatted rows to blurred vertices."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray

from napari_deepcrf.lattice.numba_lattice import NumbaLattice
from napari_deepcrf.lattice.numba_simd import (
    BLOCK,
    Width,
    add,
    aligned_empty,
    fill,
    fma,
    load,
    padded,
    store,
    width_for,
)

FloatArray = NDArray[np.float32]
Int32Array = NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class LatticeBuffers:
    """Values of one lattice's R rows and M vertices, P floats each."""

    lattice: NumbaLattice
    rows: FloatArray
    """(R, slots, P)."""
    z: tuple[FloatArray, FloatArray]
    """Two of (M+1, P), whose last row is zero; blurred sums are in the first."""

    @staticmethod
    def of(lattice: NumbaLattice, slots: Width, lanes: int) -> LatticeBuffers:
        """Uninitialised buffers, but for the last rows of zeros."""
        z = aligned_empty(2, lattice.num_vertices + 1, lanes)
        z[:, -1] = 0
        return LatticeBuffers(
            lattice, aligned_empty(len(lattice.row_vertex), len(slots), lanes), (z[0], z[1])
        )


def blur_tasks(
    buffers: Sequence[LatticeBuffers],
    *,
    reverse: bool = False,
    keep: Sequence[FloatArray | None] | None = None,
) -> Iterator[Callable[[], None]]:
    """What sums the last slot of all rows by vertex and blurs every lattice, into z[0].

    ``keep[m]`` (M + 1, P) receives the sums of lattice m before the blur. The lanes are shared
    out to as many threads as there are.
    """
    lanes = buffers[0].rows.shape[2]
    groups = -(-torch.get_num_threads() // len(buffers))
    step = -(-lanes // (groups * BLOCK)) * BLOCK
    for m, own in enumerate(buffers):
        for lane in range(0, lanes, step):
            part = lane, min(step, lanes - lane)
            yield partial(_blur_lanes, own, reverse, keep[m] if keep else None, *part)


def _blur_lanes(
    buffers: LatticeBuffers, reverse: bool, keep: FloatArray | None, lane: int, lanes: int
) -> None:
    lattice, width = buffers.lattice, width_for(lanes)
    order = lattice.blur_order(reverse=reverse)
    source, out = buffers.z[:: 1 if len(order) % 2 == 0 else -1]
    sum_rows(width, lattice.vertex_row, lattice.rows, buffers.rows, source, lane)
    if keep is not None:
        keep[:, lane : lane + lanes] = source[:, lane : lane + lanes]
    tap = np.float32(lattice.tap)
    for axis in order:
        blur_axis(width, lattice.neighbours[axis].numpy(), tap, source, out, lane)
        source, out = out, source


@njit(nogil=True, cache=True)
def gather_rows(
    width: Width,
    vertex: Int32Array,
    z: FloatArray,
    mixing: FloatArray,
    rows: FloatArray,
    slot: int,
) -> None:
    """A slot of rows (R, slots, P) from z (M, P) at ``vertex`` (R,), times ``mixing`` (P, P).

    An empty ``mixing`` stands for the identity.
    """
    lanes = padded(width)
    stride = rows.shape[1] * lanes
    mixed = mixing.shape[0]
    for r in range(vertex.shape[0]):
        v = np.int64(vertex[r])
        x = load(width, z, v * lanes)
        if mixed > 0:
            x = fill(width, 0)
            for c in range(mixed):
                x = fma(fill(width, z[v, c]), load(width, mixing, c * lanes), x)
        store(rows, r * stride + slot * lanes, x)


@njit(nogil=True, cache=True)
def sum_rows(
    width: Width,
    first_row: Int32Array,
    entry: Int32Array,
    rows: FloatArray,
    z: FloatArray,
    lane: int,
) -> None:
    """Set z[v] = Σ of the sums of v's rows, for the lanes of ``width`` from ``lane`` on.

    ``first_row`` (M+1,) and ``entry`` (R,) group rows (R, slots, P) by vertex; z is (M+1, P).
    """
    stride = z.shape[1]
    slots = rows.shape[1]
    for v in range(first_row.shape[0] - 1):
        x = fill(width, 0)
        for e in range(first_row[v], first_row[v + 1]):
            x = add(x, load(width, rows, ((entry[e] + 1) * slots - 1) * stride + lane))
        store(z, v * stride + lane, x)


@njit(nogil=True, cache=True)
def blur_axis(
    width: Width,
    neighbours: Int32Array,
    tap: Any,
    z: FloatArray,
    out: FloatArray,
    lane: int,
) -> None:
    """Set out = z + tap (left + right) along one axis, for the lanes of ``width`` from ``lane`` on.

    ``neighbours`` is (M, 2), z is (M+1, P) with a last row of zeros.
    """
    stride = z.shape[1]
    side = fill(width, tap)
    for v in range(neighbours.shape[0]):
        left = load(width, z, np.int64(neighbours[v, 0]) * stride + lane)
        right = load(width, z, np.int64(neighbours[v, 1]) * stride + lane)
        at = v * stride + lane
        store(out, at, fma(side, add(left, right), load(width, z, at)))
