"""An exact Gaussian over the positions of a pixel grid: one short filter along each axis."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

ROWS = 64
"""Rows of one matrix product."""


@dataclass(frozen=True, eq=False)
class GridGaussian:
    """K = K_0 ⊗ K_1 (⊗ K_2): a separable Gaussian, zero beyond the border and a truncation.

    Points are the pixels of ``images`` images, one after the other, which K does not connect.

    Its gradients are those of the truncated kernel.
    """

    shape: tuple[int, ...]
    """The grid of an image, slowest axis first."""
    taps: tuple[Tensor, ...]
    """For each axis the kernel's values at offsets -r..r, a function of the axis's width."""
    images: int = 1

    def apply(self, values: Tensor) -> Tensor:
        """K x for values (N, C)."""
        volume = values.reshape(self.images, *self.shape, values.shape[1])
        for axis, taps in enumerate(self.taps, start=1):
            volume = correlate(volume, taps, axis)
        return volume.reshape(values.shape)

    def row_sum(self) -> Tensor:
        """(N,) K·1: the product of every axis's own sums."""
        sums = self.taps[0].new_ones(1)
        for size, taps in zip(self.shape, self.taps, strict=True):
            sums = (sums[:, None] * sums_within(taps, size)).flatten()
        return sums.repeat(self.images)

    def diagonal(self) -> Tensor:
        """(N,) one for every pixel, up to the widths' gradient, which is zero."""
        centre = torch.stack([taps[taps.shape[0] // 2] for taps in self.taps]).prod()
        return centre.expand(self.images * math.prod(self.shape))


def gaussian_taps(width: Tensor, size: int, radius: float) -> Tensor:
    """exp(-k²/2θ²) for k = -r..r, r being ``radius`` widths but never past the axis's ``size``."""
    reach = math.ceil(min(size - 1, radius * float(width.detach())))
    offsets = torch.arange(-reach, reach + 1, dtype=width.dtype, device=width.device)
    return torch.exp(-0.5 * (offsets / width) ** 2)


def correlate(volume: Tensor, taps: Tensor, axis: int) -> Tensor:
    """y_i = Σ_k t_k x_{i+k} along one axis, zero beyond the ends; differentiable in both.

    The axis is cut into overlapping blocks that share one banded matrix, so that the work is matrix
    products and its cost grows with the reach, not with the axis. The products are small ones, as
    a large one's last digits depend on the number of threads.
    """
    reach = taps.shape[0] // 2
    size = volume.shape[axis]
    block = min(size, max(32, 2 * reach))
    count = -(-size // block)
    moved = volume.movedim(axis, -1)
    padded = torch.nn.functional.pad(moved, (reach, count * block - size + reach))
    windows = padded.unfold(-1, block + 2 * reach, block)
    result = _times(windows.flatten(0, -2), _band(taps, block).T)
    return result.view(*windows.shape[:-1], block).flatten(-2)[..., :size].movedim(-1, axis)


def _times(rows: Tensor, matrix: Tensor) -> Tensor:
    """The product (R, K) (K, C), some rows at a time."""
    missing = -rows.shape[0] % ROWS
    parts = torch.nn.functional.pad(rows, (0, 0, 0, missing)).view(-1, ROWS, rows.shape[1])
    product = torch.bmm(parts, matrix.expand(parts.shape[0], -1, -1))
    return product.flatten(0, 1)[: rows.shape[0]]


def _band(taps: Tensor, block: int) -> Tensor:
    """(block, block + 2r), every row the taps, shifted by one more."""
    rows = [torch.nn.functional.pad(taps, (row, block - 1 - row)) for row in range(block)]
    return torch.stack(rows)


def sums_within(taps: Tensor, size: int) -> Tensor:
    """(size,): for every place on an axis, the sum of the taps that do not reach beyond it."""
    reach = taps.shape[0] // 2
    place = torch.arange(size, device=taps.device)
    running = torch.nn.functional.pad(taps.double().cumsum(0), (1, 0))
    first = (reach - place).clamp(min=0)
    last = (size + reach - place).clamp(max=taps.shape[0])
    return (running[last] - running[first]).to(taps)


def spatial_taps(widths: Tensor, shape: Sequence[int], radius: float) -> tuple[Tensor, ...]:
    """Taps for every axis of a grid; widths (x, y) or (x, y, z), the shape slowest axis first."""
    pairs = zip(reversed(widths.unbind()), shape, strict=True)
    return tuple(gaussian_taps(width, size, radius) for width, size in pairs)
