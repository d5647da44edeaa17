"""The lattice in plain PyTorch: the readable definition, on any device, in any precision.

Every faster set of kernels is tested against this one.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from napari_deepcrf.lattice.embedding import elevate, simplex
from napari_deepcrf.lattice.keys import (
    Numbering,
    adjacent_keys,
    check_coordinate,
    find_keys,
    number_cells,
)
from napari_deepcrf.lattice.lattice import Lattice, feature_scale


@dataclass(frozen=True, kw_only=True, eq=False)
class TorchLattice(Lattice):
    """A lattice that lists the vertices of every point."""

    vertex: Tensor


def build(features: Tensor, *, ring: bool, passes: int, images: int) -> Lattice:
    """Embed features (N, d) and connect the occupied vertices; see ``Lattice.build``."""
    elevated = elevate(features * feature_scale(passes))
    check_coordinate(float(elevated.abs().max()), elevated.dtype)
    cell, rank, weight = simplex(elevated)
    # One cell for the simplex, two for the ring and its neighbours.
    first, stop = (cell.amin(0) - 3).tolist(), (cell.amax(0) + 3).tolist()
    cells = number_cells(first[:-1], stop[:-1], images)
    keys = _vertex_keys(cell, rank, cells)
    occupied = torch.unique(keys)
    if ring:
        occupied = torch.unique(torch.cat([occupied, adjacent_keys(occupied, cells).flatten()]))
    return TorchLattice(
        vertex=torch.searchsorted(occupied, keys).int(),
        weight=weight,
        rank=rank,
        neighbours=find_keys(occupied, adjacent_keys(occupied, cells)).int(),
        passes=passes,
        backend="torch",
    )


def splat(lattice: Lattice, values: Tensor) -> Tensor:
    """(N, C) -> (M, C), a segmented sum in a fixed order: the same in every run."""
    if values.device.type == "mps":  # where PyTorch has no segmented sum
        return splat_in_any_order(lattice, values)
    entry = lattice.entry.long()
    point = entry // (lattice.dim + 1)
    weighted = lattice.weight.flatten()[entry, None] * values[point]
    return torch.segment_reduce(
        weighted, "sum", offsets=lattice.row_start.long(), axis=0, unsafe=True
    )


def splat_in_any_order(lattice: Lattice, values: Tensor) -> Tensor:
    """(N, C) -> (M, C), added up as the device pleases."""
    z = values.new_zeros(lattice.num_vertices, values.shape[1])
    for k in range(lattice.dim + 1):
        z.index_add_(0, lattice.vertex[:, k].long(), lattice.weight[:, k, None] * values)
    return z


def blur(lattice: Lattice, z: Tensor, *, reverse: bool) -> Tensor:
    """(M, C) -> (M, C), along axes 0..d; each further pass the other way round.

    ``reverse`` runs the whole sequence backwards, which for an even number of passes is the same.
    """
    nothing = z.new_zeros(1, z.shape[1])
    neighbours = lattice.neighbours.long()
    for axis in lattice.blur_order(reverse=reverse):
        left, right = neighbours[axis].unbind(1)
        padded = torch.cat([z, nothing])
        z = z + lattice.tap * (padded[left] + padded[right])
    return z


def slice(lattice: Lattice, z: Tensor) -> Tensor:  # noqa: A001 - the field's name
    """(M, C) -> (N, C), barycentric interpolation of the vertices' values."""
    vertex = lattice.vertex.long()
    out = z.new_zeros(lattice.num_points, z.shape[1])
    for k in range(lattice.dim + 1):
        out += lattice.weight[:, k, None] * z[vertex[:, k]]
    return out


def gather_dot(lattice: Lattice, values: Tensor, z: Tensor) -> Tensor:
    """(N, C), (M, C) -> (N, d+1)."""
    vertex = lattice.vertex.long()
    dots = [(values * z[vertex[:, k]]).sum(1) for k in range(lattice.dim + 1)]
    return torch.stack(dots, 1)


def _vertex_keys(cell: Tensor, rank: Tensor, cells: Numbering) -> Tensor:
    """Keys (N, d+1) of the enclosing vertices.

    The vertex of remainder k lies in the cells of the remainder-0 vertex, less one for the
    coordinates of the k largest ranks.
    """
    d = cell.shape[1] - 1
    stride = torch.tensor([*cells.stride, 0], dtype=torch.int64, device=cell.device)
    image = torch.arange(cells.images, device=cell.device)
    image = image.repeat_interleave(cell.shape[0] // cells.images)
    base = (cell * stride).sum(1) + cells.offset + image * cells.image_stride
    lowered = torch.zeros_like(base)
    keys = [base]
    for k in range(1, d + 1):
        lowered = lowered + stride[(rank == d + 1 - k).int().argmax(1)]
        keys.append(base + k - lowered)
    return torch.stack(keys, 1)
