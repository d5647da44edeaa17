"""The lattice in plain PyTorch: the readable definition, on any device, in any precision.

Every faster set of kernels is tested against this one.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from napari_deepcrf.lattice.embedding import elevate, simplex
from napari_deepcrf.lattice.lattice import Lattice, feature_scale

KEY_LIMIT = 2**62


@dataclass(frozen=True, kw_only=True, eq=False)
class TorchLattice(Lattice):
    """A lattice that lists the vertices of every point."""

    vertex: Tensor


def build(features: Tensor, *, ring: bool, passes: int, images: int) -> Lattice:
    """Embed features (N, d) and connect the occupied vertices; see ``Lattice.build``."""
    elevated = elevate(features * feature_scale(passes))
    check_cells(elevated)
    cell, rank, weight = simplex(elevated)
    keys, strides = _vertex_keys(cell, rank, images)

    occupied = torch.unique(keys)
    if ring:
        around = [
            _step(occupied, strides, axis, sign) for axis in _axes(strides) for sign in (-1, 1)
        ]
        occupied = torch.unique(torch.cat([occupied, *around]))
    vertex = torch.searchsorted(occupied, keys)
    neighbours = torch.stack(
        [
            torch.stack([_find(occupied, _step(occupied, strides, axis, s)) for s in (-1, 1)], 1)
            for axis in _axes(strides)
        ]
    )
    return TorchLattice(
        vertex=vertex.int(),
        weight=weight,
        rank=rank,
        neighbours=neighbours.int(),
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
    axes = list(lattice.neighbours.long())
    descending = reverse and lattice.passes % 2 == 1
    for number in range(lattice.passes):
        for neighbour in reversed(axes) if descending != (number % 2 == 1) else axes:
            padded = torch.cat([z, nothing])
            z = z + lattice.tap * (padded[neighbour[:, 0]] + padded[neighbour[:, 1]])
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


def check_cells(elevated: Tensor) -> None:
    """Refuse features so spread out that whole cells are no longer exact in their precision."""
    largest = float(elevated.abs().max())
    limit = 2.0 ** (22 if elevated.dtype == torch.float32 else 50)
    if largest > limit:
        raise ValueError(_too_small(f"a coordinate of {largest:.3g}, at most {limit:.3g} fits"))


def _too_small(what: str) -> str:
    return f"features: kernel widths too small, lattice keys leave their range ({what})"


def _vertex_keys(cell: Tensor, rank: Tensor, images: int) -> tuple[Tensor, Tensor]:
    """Number the enclosing vertices: keys (N, d+1) int64, strides (d+1,) int64.

    The vertex of remainder k has coordinates (d+1) m_i + k, where m_i is the cell of the
    remainder-0 vertex, less one for the coordinates of the k largest ranks. Its key is k plus
    the mixed-radix number of m_0..m_{d-1} (the last coordinate follows from the others), and the
    image's number is the last digit. No step leaves an image's range of keys.
    """
    d = cell.shape[1] - 1
    lowest = cell.amin(0) - 3  # one cell for the simplex, two for the ring and its neighbours
    extent = cell.amax(0) - lowest + 3
    strides, size = [], d + 1
    for width in extent[:d].tolist():
        strides.append(size)
        size *= int(width)
    if size * images >= KEY_LIMIT:
        raise ValueError(_too_small(f"{size * images:.3g} cells, at most {KEY_LIMIT:.3g} fit"))
    stride = torch.tensor([*strides, 0], dtype=torch.int64, device=cell.device)
    image = torch.arange(images, device=cell.device).repeat_interleave(cell.shape[0] // images)
    base = ((cell - lowest) * stride).sum(1) + image * size
    lowered = torch.zeros_like(base)
    keys = [base]
    for k in range(1, d + 1):
        lowered = lowered + stride[(rank == d + 1 - k).int().argmax(1)]
        keys.append(base + k - lowered)
    return torch.stack(keys, 1), stride


def _axes(strides: Tensor) -> range:
    return range(strides.shape[0])


def _step(keys: Tensor, strides: Tensor, axis: int, sign: int) -> Tensor:
    """Keys of the neighbours one step along an axis: +1 on every coordinate but -d on ``axis``.

    A right step raises the remainder by one and lowers m_axis by one; past remainder d it wraps
    to 0 and raises every m by one. A left step undoes this.
    """
    order = strides.shape[0]
    last = order - 1 if sign > 0 else 0
    wrap = strides.sum() - order
    stepped = keys + sign * (1 - strides[axis])
    return torch.where(keys % order == last, stepped + sign * wrap, stepped)


def _find(occupied: Tensor, keys: Tensor) -> Tensor:
    """Positions of the keys in a sorted list, its length where a key is absent."""
    size = occupied.shape[0]
    position = torch.searchsorted(occupied, keys).clamp_(max=size - 1)
    return torch.where(occupied[position] == keys, position, size)
