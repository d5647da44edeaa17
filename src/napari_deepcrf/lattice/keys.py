"""Vertices as integers: how keys number them, the steps between neighbours, and look-up by key.

The vertex of remainder k has the elevated coordinates (d+1) m_i + k. They sum to zero, so that k
and the first d cells m_i tell it. Its key is a mixed-radix number,

    image · image_stride + k + offset + Σ_{i<d} stride_i m_i,        stride_0 = d + 1,

whose radices leave room around the cells in use: no step along an axis leads from image to image.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from napari_deepcrf.lattice.embedding import axis_scales
from napari_deepcrf.lattice.lattice import feature_scale

KEY_LIMIT = 2**62
"""Keys of 64 bits, with room for the steps."""
CELL_LIMIT = {torch.float32: 2.0**22, torch.float64: 2.0**50}
"""The largest elevated coordinate at which a cell is still exact in a precision."""


@dataclass(frozen=True)
class Numbering:
    """The radices of the keys: how image, cell and remainder make the number of a vertex."""

    stride: tuple[int, ...]
    """(d,)."""
    offset: int
    """Modulo 2^64, like the sum that makes a key: far from the origin its terms leave 64 bits."""
    image_stride: int
    """The keys of one image."""
    images: int

    @property
    def size(self) -> int:
        """Keys are 0 to size - 1."""
        return self.images * self.image_stride

    @property
    def dtype(self) -> torch.dtype:
        """The narrowest integer that holds every key: half the bytes take half the sorting."""
        return torch.int32 if self.size < 2**31 else torch.int64


def number_cells(first: Sequence[int], stop: Sequence[int], images: int) -> Numbering:
    """Number the cells first_i <= m_i < stop_i, each (d,), of so many images.

    Raises
    ------
    ValueError
        If there are more than a key can number.
    """
    stride, offset, size = [], 0, len(first) + 1
    for low, high in zip(first, stop, strict=True):
        stride.append(size)
        offset -= low * size
        size *= high - low
        if size * images >= KEY_LIMIT:
            raise _too_small(f"{size * images:.3g} cells, at most {KEY_LIMIT:.3g} fit")
    return Numbering(tuple(stride), (offset + 2**63) % 2**64 - 2**63, size, images)


def numbering(
    lowest: Sequence[float], highest: Sequence[float], passes: int, *, images: int
) -> Numbering:
    """Number the cells that float32 features within bounds (d,) can reach in every image.

    Raises
    ------
    ValueError
        If the features spread over more cells than a key can number.
    """
    d = len(lowest)
    scale = [s * feature_scale(passes) for s in axis_scales(d)]
    low = [s * v for s, v in zip(scale, lowest, strict=True)]
    high = [s * v for s, v in zip(scale, highest, strict=True)]
    first, stop = [], []
    for i in range(d):
        below = sum(low[i:]) - (i * high[i - 1] if i else 0.0)
        above = sum(high[i:]) - (i * low[i - 1] if i else 0.0)
        check_coordinate(max(-below, above), torch.float32)
        # Two cells for rounding and wrapping, two for the ring and its neighbours.
        first.append(math.floor(below / (d + 1)) - 4)
        stop.append(math.ceil(above / (d + 1)) + 4)
    return number_cells(first, stop, images)


def check_coordinate(largest: float, dtype: torch.dtype) -> None:
    """Refuse elevated coordinates so large that whole cells are no longer exact."""
    limit = CELL_LIMIT[dtype]
    if largest > limit:
        raise _too_small(f"a coordinate of {largest:.3g}, at most {limit:.3g} fits")


def adjacent_keys(keys: Tensor, cells: Numbering) -> Tensor:
    """Keys (M,) -> keys (d+1, M, 2) one step to the left and right along every axis.

    A right step adds one to every coordinate but subtracts d from that of the axis: it raises
    the remainder by one and lowers m_axis by one; past remainder d the remainder wraps to 0 and
    every m rises by one. A left step undoes this.
    """
    order = len(cells.stride) + 1
    own = keys.new_tensor([*cells.stride, 0])
    sign = keys.new_tensor([-1, 1])
    last = keys.new_tensor([0, order - 1])
    wrap = (keys[:, None] % order == last) * (sign * (sum(cells.stride) - order))
    return keys[:, None] + wrap + (sign * (1 - own[:, None]))[:, None, :]


def find_keys(occupied: Tensor, keys: Tensor) -> Tensor:
    """Positions of the keys in a sorted list (M,), M where a key is absent."""
    size = occupied.shape[0]
    position = torch.searchsorted(occupied, keys).clamp_(max=size - 1)
    return torch.where(occupied[position] == keys, position, size)


def _too_small(what: str) -> ValueError:
    return ValueError(f"features: kernel widths too small, lattice keys leave their range ({what})")
