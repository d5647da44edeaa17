"""From features to simplices: the elevation, the enclosing simplex, and their derivatives.

Adams, Baek & Davis (2010); the adjoints are those of its linear maps.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def axis_scales(dim: int) -> list[float]:
    """(d,) s_i = √(2/3) (d+1) / √((i+1)(i+2)), so that the blur has unit standard deviation."""
    return [math.sqrt(2.0 / 3.0) * (dim + 1) / math.sqrt((i + 1) * (i + 2)) for i in range(dim)]


def elevate(features: Tensor) -> Tensor:
    """Map features (N, d) onto the hyperplane of coordinates (N, d+1) that sum to zero."""
    d = features.shape[1]
    scaled = features * features.new_tensor(axis_scales(d))
    suffix = scaled.flip(1).cumsum(1).flip(1)
    steps = torch.arange(1, d + 1, dtype=features.dtype, device=features.device)
    return torch.nn.functional.pad(suffix, (0, 1)) - torch.nn.functional.pad(steps * scaled, (1, 0))


def elevate_transposed(gradient: Tensor) -> Tensor:
    """The adjoint of ``elevate``: (N, d+1) -> (N, d)."""
    d = gradient.shape[1] - 1
    steps = torch.arange(1, d + 1, dtype=gradient.dtype, device=gradient.device)
    prefix = gradient[:, :d].cumsum(1) - steps * gradient[:, 1:]
    return prefix * gradient.new_tensor(axis_scales(d))


def simplex(elevated: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Find the simplex around each elevated point (N, d+1).

    Returns
    -------
    cell
        (N, d+1) int64: the remainder-0 vertex, in units of d+1.
    rank
        (N, d+1) int8: descending rank of each residual; ties go to the lower coordinate.
    weight
        (N, d+1): barycentric weights of the vertices of remainder 0..d.
    """
    order = elevated.shape[1]
    nearest = torch.round(elevated / order)
    residual = elevated - nearest * order
    rank = torch.argsort(torch.argsort(residual, dim=1, descending=True, stable=True), dim=1)
    # Rounding each coordinate alone leaves the sum off by some cells; move the largest or the
    # smallest residuals over to the next cell.
    cell = nearest.long()
    rank = rank + cell.sum(1, keepdim=True)
    shift = (rank < 0).long() - (rank >= order).long()
    rank = rank + shift * order
    cell = cell + shift
    residual = (elevated - (cell * order).to(elevated.dtype)) / order
    descending = torch.empty_like(residual).scatter_(1, rank, residual)
    # Between neighbouring ranks r-1 and r lies the weight of remainder d+1-r.
    inner = (descending[:, :-1] - descending[:, 1:]).flip(1)
    first = 1.0 - inner.sum(1, keepdim=True)
    return cell, rank.to(torch.int8), torch.cat([first, inner], 1)


def weights_transposed(gradient: Tensor, rank: Tensor) -> Tensor:
    """Adjoint of residuals -> barycentric weights: ∂b (N, d+1) -> ∂elevated (N, d+1)."""
    order = gradient.shape[1]
    position = order - 1 - rank.long()
    upper = gradient.gather(1, position)
    lower = gradient.gather(1, (position + 1) % order)
    return (upper - lower) / order
