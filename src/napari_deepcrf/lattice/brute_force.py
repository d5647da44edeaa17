"""The Gaussian kernel matrix itself, applied in blocks of rows: exact, quadratic in the pixels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd import Function

from napari_deepcrf.lattice.first_order import first_order

BLOCK_ELEMENTS = 2**23
"""Elements of a block of rows of K, 32 MB in float32: a few of them are all the memory it takes."""


@dataclass(frozen=True, eq=False)
class BruteForceGaussian:
    """K_ij = exp(-|f_i - f_j|²/2) over features (N, d) already divided by the widths.

    Points are those of ``images`` images, one after the other, which K does not connect.
    """

    features: Tensor
    images: int = 1

    def apply(self, values: Tensor) -> Tensor:
        """K x for values (N, C), differentiable in values and features; memory stays bounded."""
        parts = (tensor.chunk(self.images) for tensor in (values, self.features))
        products = [_Product.apply(*part) for part in zip(*parts, strict=True)]  # type: ignore[no-untyped-call]
        return torch.cat(cast("list[Tensor]", products))

    def row_sum(self) -> Tensor:
        """(N,) K·1."""
        return self.apply(torch.ones_like(self.features[:, :1]))[:, 0]

    def diagonal(self) -> Tensor:
        """(N,) ones."""
        return torch.ones_like(self.features[:, 0])


class _Product(Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, features: Tensor) -> Tensor:
        ctx.save_for_backward(values, features)
        return torch.cat([kernel @ values for _, kernel in _rows(features)])

    @staticmethod
    @first_order
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor | None]:
        """K is symmetric; ∂K_ij/∂f_i = K_ij (f_j - f_i), and f_i enters row i and column i."""
        values, features = ctx.saved_tensors
        grad_values, grad_features = [], []
        for rows, kernel in _rows(features):
            grad_values.append(kernel @ gradient)
            if ctx.needs_input_grad[1]:
                pair = gradient[rows] @ values.T + values[rows] @ gradient.T
                pair.mul_(kernel)
                grad_features.append(pair @ features - pair.sum(1, keepdim=True) * features[rows])
        return torch.cat(grad_values), torch.cat(grad_features) if grad_features else None


def _rows(features: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Blocks of rows of K; differences are formed one by one, as products would cancel."""
    count = features.shape[0]
    step = max(1, BLOCK_ELEMENTS // count)
    for start in range(0, count, step):
        rows = slice(start, min(start + step, count))
        distance = torch.cdist(
            features[rows], features, compute_mode="donot_use_mm_for_euclid_dist"
        )
        yield rows, distance.square_().mul_(-0.5).exp_()
