"""Building lattices on the GPU: vertices by one sort of packed keys, neighbours by bisection."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from napari_deepcrf.lattice.keys import adjacent_keys, find_keys, numbering
from napari_deepcrf.lattice.lattice import Lattice
from napari_deepcrf.lattice.triton_embed import embed

ENTRY_LIMIT = 2**31
"""Entries are numbered in 32 bits."""
PIECE = 128
"""Entries that one program of the splat sums; longer runs are cut into several pieces."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TritonLattice(Lattice):
    """A lattice with what the GPU's splat reads, in the order in which it reads it.

    E = N (d+1) entries, P pieces of at most ``PIECE`` entries, Q vertices of several pieces.
    A vertex without entries has one empty piece, so that its row of the splat is written too.
    """

    vertex: Tensor
    row_start: Tensor
    entry: Tensor
    splat_point: Tensor
    """(E,) int32: the point of each entry, grouped by vertex."""
    splat_weight: Tensor
    """(E,) float32: the barycentric weight of each entry, grouped by vertex."""
    piece_row: Tensor
    """(M+1,) int32: where each vertex's pieces begin."""
    piece_vertex: Tensor
    """(P,) int32: the vertex of each piece."""
    split_vertex: Tensor
    """(Q,) int32: the vertices whose pieces remain to be added up."""


def build(features: Tensor, *, ring: bool, passes: int, images: int) -> TritonLattice:
    """Embed features (N, d) float32 and connect the occupied vertices; see ``Lattice.build``."""
    num_points, dim = features.shape
    if num_points * (dim + 1) >= ENTRY_LIMIT:
        most = ENTRY_LIMIT // (dim + 1)
        raise ValueError(f"features: expected fewer than {most} points, got {num_points}")
    lowest, highest = torch.stack(torch.aminmax(features, dim=0)).tolist()
    cells = numbering(lowest, highest, passes, images=images)
    keys, weight, rank = embed(features, cells, passes)
    ordered, entry = torch.sort(keys.flatten(), stable=True)
    occupied, number = torch.unique_consecutive(ordered, return_inverse=True)
    if ring:
        around = adjacent_keys(occupied, cells)
        grown = torch.unique(torch.cat([occupied, around.flatten()]))
        number = torch.searchsorted(grown, occupied)[number]
        occupied = grown
    vertex = torch.empty_like(number).scatter_(0, entry, number)
    row_start = torch.searchsorted(ordered, occupied)
    row_start = torch.nn.functional.pad(row_start, (0, 1), value=entry.shape[0])
    piece_row, piece_vertex, split_vertex = _pieces(row_start)
    return TritonLattice(
        vertex=vertex.view(keys.shape).int(),
        weight=weight,
        rank=rank,
        neighbours=find_keys(occupied, adjacent_keys(occupied, cells)).int(),
        row_start=row_start.int(),
        entry=entry.int(),
        passes=passes,
        backend="triton",
        splat_point=(entry // keys.shape[1]).int(),
        splat_weight=weight.flatten()[entry],
        piece_row=piece_row.int(),
        piece_vertex=piece_vertex.int(),
        split_vertex=split_vertex.int(),
    )


def owned(lattice: Lattice) -> TritonLattice:
    """The lattice, if the Triton kernels built it."""
    if not isinstance(lattice, TritonLattice):
        raise TypeError(f"lattice: expected one built by Triton, got one by {lattice.backend!r}")
    return lattice


def _pieces(row_start: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Cut the runs of row_start (M+1,) into ``piece_row``, ``piece_vertex``, ``split_vertex``."""
    count = ((row_start.diff() + (PIECE - 1)) // PIECE).clamp_(min=1)
    piece_row = torch.nn.functional.pad(count.cumsum(0), (1, 0))
    piece_vertex = torch.repeat_interleave(count)
    return piece_row, piece_vertex, (count > 1).nonzero()[:, 0]
