"""Gaussian filters bound to points and widths: linear operators with a diagonal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from napari_deepcrf.lattice.filter import filter_on
from napari_deepcrf.lattice.lattice import Lattice


class Gaussian(Protocol):
    """K, an (N, N) Gaussian kernel matrix or what approximates it, as an operator."""

    def apply(self, values: Tensor) -> Tensor:
        """K x for values (N, C), differentiable in values and in the kernel's widths."""
        ...

    def row_sum(self) -> Tensor:
        """(N,) K·1, differentiable in the kernel's widths."""
        ...

    def diagonal(self) -> Tensor:
        """(N,) the kernel's value of every point on itself."""
        ...


@dataclass(frozen=True, eq=False)
class LatticeGaussian:
    """K = α Sᵀ B S on a permutohedral lattice."""

    lattice: Lattice
    weight: Tensor
    """(N, d+1): ``lattice.weight``, as a function of the widths where those have gradients."""

    def apply(self, values: Tensor) -> Tensor:
        return filter_on(self.lattice, values, self.weight)

    def row_sum(self) -> Tensor:
        return self.apply(torch.ones_like(self.weight[:, :1]))[:, 0]

    def diagonal(self) -> Tensor:
        """α Σ_kl b_k b_l c_|k-l|, on a lattice where no neighbour is missing."""
        stencil = self.lattice.stencil().to(self.weight)
        index = torch.arange(self.lattice.dim + 1, device=self.weight.device)
        blur = stencil[(index[:, None] - index).abs()]
        return self.lattice.alpha * ((self.weight @ blur) * self.weight).sum(1)
