"""From images to the coordinates that the Gaussian kernels compare."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def positions(shape: Sequence[int], like: Tensor) -> Tensor:
    """Pixel positions (N, len(shape)) of a row-major grid, in (x, y) or (x, y, z) order.

    The lattice treats its axes unlike, so their order shows in the approximation. This one, with
    the colours behind it, is the order of Krähenbühl & Koltun's code, whose results it gives.
    """
    axes = [torch.arange(n, dtype=like.dtype, device=like.device) for n in shape]
    mesh = torch.meshgrid(*axes, indexing="ij")
    return torch.stack(mesh[::-1], -1).reshape(-1, len(shape))


def pixels(tensor: Tensor) -> Tensor:
    """(C, *shape) -> (N, C), row-major."""
    return tensor.flatten(1).T


def grid(vectors: Tensor, shape: Sequence[int]) -> Tensor:
    """(..., N, C) -> (..., C, *shape), a view."""
    return vectors.transpose(-1, -2).reshape(*vectors.shape[:-2], vectors.shape[-1], *shape)
