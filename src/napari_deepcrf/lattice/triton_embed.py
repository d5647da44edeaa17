"""Embedding on the GPU: features to lattice keys, barycentric weights and ranks, one kernel."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import triton
from torch import Tensor

from napari_deepcrf.lattice.embedding import axis_scales
from napari_deepcrf.lattice.lattice import feature_scale
from napari_deepcrf.lattice.triton_kernels import embed_kernel

KEY_LIMIT = 2**62
CELL_LIMIT = 2**22
"""Largest elevated coordinate at which a cell is still exact in float32."""
ROWS = 64


@dataclass(frozen=True)
class Numbering:
    """How the cells m_0..m_{d-1} and the remainder k of a vertex of an image make its key.

    The key is image * image_stride + k + offset + Σ stride_i m_i, a mixed-radix number below
    ``size``. The strides leave room around the cells, so that steps from one vertex to another
    never lead from image to image.
    """

    stride: tuple[int, ...]
    offset: int
    image_stride: int
    images: int

    @property
    def size(self) -> int:
        return self.images * self.image_stride

    @property
    def dtype(self) -> torch.dtype:
        """The narrowest integer that holds every key: half the bytes take half the sorting."""
        return torch.int32 if self.size < 2**31 else torch.int64


def numbering(lowest: list[float], highest: list[float], passes: int, *, images: int) -> Numbering:
    """Number the cells that features within the given bounds (d,) can reach in every image.

    Raises
    ------
    ValueError
        If the features spread over more cells than a key can number.
    """
    d = len(lowest)
    scale = _scales(d, passes)
    low = [s * v for s, v in zip(scale, lowest, strict=True)]
    high = [s * v for s, v in zip(scale, highest, strict=True)]
    stride, offset, size = [], 0, d + 1
    for i in range(d):
        below = sum(low[i:]) - (i * high[i - 1] if i else 0.0)
        above = sum(high[i:]) - (i * low[i - 1] if i else 0.0)
        if max(-below, above) > CELL_LIMIT:
            raise ValueError(_too_small(f"a coordinate of {max(-below, above):.3g}"))
        # Two cells for rounding and wrapping, two for the ring and its neighbours.
        first, last = math.floor(below / (d + 1)) - 4, math.ceil(above / (d + 1)) + 4
        stride.append(size)
        offset -= first * size
        size *= last - first
        if size * images >= KEY_LIMIT:
            raise ValueError(_too_small("too many cells"))
    return Numbering(tuple(stride), offset, size, images)


def embed(features: Tensor, cells: Numbering, passes: int) -> tuple[Tensor, Tensor, Tensor]:
    """Features (N, d) -> keys (N, d+1), weights (N, d+1) float32, ranks (N, d+1) int8.

    The N points are those of ``cells.images`` images, of N / images points each.
    """
    num_points, d = features.shape
    keys = features.new_empty(num_points, d + 1, dtype=cells.dtype)
    weight = features.new_empty(num_points, d + 1)
    rank = features.new_empty(num_points, d + 1, dtype=torch.int8)
    scale = features.new_tensor(_scales(d, passes))
    numbers = [*cells.stride, cells.offset, cells.image_stride]
    stride = torch.tensor(numbers, device=features.device)
    embed_kernel[(triton.cdiv(num_points, ROWS),)](
        features, scale, stride, keys, weight, rank, num_points, num_points // cells.images,
        *features.stride(),
        D=d, ROWS=ROWS, COLUMNS=triton.next_power_of_2(d + 1),
    )  # fmt: skip
    return keys, weight, rank


def _scales(dim: int, passes: int) -> list[float]:
    return [s * feature_scale(passes) for s in axis_scales(dim)]


def _too_small(what: str) -> str:
    return f"features: kernel widths too small, lattice keys leave their range ({what})"
