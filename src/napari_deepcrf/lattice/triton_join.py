"""The lattices of all kernels as one, so that one launch serves every kernel.

Lattices over the same N points become one with K = Σ_m (d_m + 1) corners a point. Their vertices
follow one another; blur step s runs along the s-th axis of every lattice at once, and lattices of
fewer axes rest during the last steps. Lattices that blur with another tap have steps of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from napari_deepcrf.lattice.triton_build import TritonLattice


@dataclass(frozen=True, eq=False)
class JoinedLattices:
    """The arrays of several lattices: N points, M vertices, E = K N entries, P pieces."""

    vertex: Tensor
    """(K, N) int32."""
    splat_position: Tensor
    """(E,) int64: where each entry, grouped by vertex, lies in the flat (K, N) arrays."""
    splat_point: Tensor
    """(E,) int32."""
    row_start: Tensor
    """(M+1,) int32."""
    piece_row: Tensor
    """(M+1,) int32."""
    piece_vertex: Tensor
    """(P,) int32; -1 fills up a larger capacity."""
    split_vertex: Tensor
    """(Q,) int32; -1 fills up a larger capacity."""
    neighbours: Tensor
    """(S, M, 2) int32 for the S blur steps; -1 where there is none."""
    taps: tuple[float, ...]
    """The weight of every blur step on either neighbour."""


def join(lattices: Sequence[TritonLattice]) -> JoinedLattices:
    """Join the lattices of one image or of one batch."""
    num_points = lattices[0].num_points
    vertices, positions, rows, piece_rows, pieces, split = [], [], [], [], [], []
    corners = num_vertices = num_entries = num_pieces = 0
    for lattice in lattices:
        own = lattice.dim + 1
        corner = lattice.entry.long() - lattice.splat_point * own
        vertices.append(lattice.vertex.T + num_vertices)
        positions.append((corner + corners) * num_points + lattice.splat_point)
        rows.append(lattice.row_start[:-1] + num_entries)
        piece_rows.append(lattice.piece_row[:-1] + num_pieces)
        pieces.append(lattice.piece_vertex + num_vertices)
        split.append(lattice.split_vertex + num_vertices)
        corners += own
        num_vertices += lattice.num_vertices
        num_entries += lattice.entry.shape[0]
        num_pieces += lattice.piece_vertex.shape[0]
    neighbours, taps = _blur_steps(lattices, num_vertices)
    end = lattices[0].row_start.new_tensor([[num_entries], [num_pieces]])
    return JoinedLattices(
        vertex=torch.cat(vertices),
        splat_position=torch.cat(positions),
        splat_point=torch.cat([lattice.splat_point for lattice in lattices]),
        row_start=torch.cat([*rows, end[0]]),
        piece_row=torch.cat([*piece_rows, end[1]]),
        piece_vertex=torch.cat(pieces),
        split_vertex=torch.cat(split),
        neighbours=neighbours,
        taps=taps,
    )


def _blur_steps(
    lattices: Sequence[TritonLattice], num_vertices: int
) -> tuple[Tensor, tuple[float, ...]]:
    lengths: dict[float, int] = {}
    for lattice in lattices:
        lengths[lattice.tap] = max(lengths.get(lattice.tap, 0), len(lattice.blur_order()))
    taps = tuple(tap for tap, length in lengths.items() for _ in range(length))
    steps = lattices[0].neighbours.new_full((len(taps), num_vertices, 2), -1)
    first = 0
    for lattice in lattices:
        missing = lattice.neighbours == lattice.num_vertices
        shifted = (lattice.neighbours + first).masked_fill_(missing, -1)
        order, step = lattice.blur_order(), taps.index(lattice.tap)
        steps[step : step + len(order), first : first + lattice.num_vertices] = shifted[order]
        first += lattice.num_vertices
    return steps, taps
