"""Embedding on the GPU: features to lattice keys, barycentric weights and ranks, one kernel."""

from __future__ import annotations

import torch
import triton
from torch import Tensor

from napari_deepcrf.lattice.embedding import axis_scales
from napari_deepcrf.lattice.keys import Numbering
from napari_deepcrf.lattice.lattice import feature_scale
from napari_deepcrf.lattice.triton_kernels import embed_kernel

ROWS = 64
"""Points of one program."""


def embed(features: Tensor, cells: Numbering, passes: int) -> tuple[Tensor, Tensor, Tensor]:
    """Features (N, d) -> keys (N, d+1), weights (N, d+1) float32, ranks (N, d+1) int8.

    The N points are those of ``cells.images`` images, of N / images points each.
    """
    num_points, d = features.shape
    keys = features.new_empty(num_points, d + 1, dtype=cells.dtype)
    weight = features.new_empty(num_points, d + 1)
    rank = features.new_empty(num_points, d + 1, dtype=torch.int8)
    scale = features.new_tensor([s * feature_scale(passes) for s in axis_scales(d)])
    numbers = [*cells.stride, cells.offset, cells.image_stride]
    stride = torch.tensor(numbers, device=features.device)
    embed_kernel[(triton.cdiv(num_points, ROWS),)](
        features, scale, stride, keys, weight, rank, num_points, num_points // cells.images,
        *features.stride(),
        D=d, ROWS=ROWS, COLUMNS=triton.next_power_of_2(d + 1),
    )  # fmt: skip
    return keys, weight, rank
