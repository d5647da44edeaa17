"""What a lattice holds during mean field, and the step from splatted rows to blurred vertices."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from napari_deepcrf.lattice.numba_lattice import NumbaLattice
from napari_deepcrf.lattice.numba_passes import blur_axis, sum_rows
from napari_deepcrf.lattice.numba_simd import BLOCK, Width, aligned_empty, width_for

FloatArray = NDArray[np.float32]


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
