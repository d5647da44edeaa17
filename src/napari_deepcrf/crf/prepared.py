"""What inference needs of an image and is worth keeping: coordinates, lattices, row sums."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

import torch
from torch import Tensor

from napari_deepcrf.lattice.filter import barycentric_weights
from napari_deepcrf.lattice.gaussians import Gaussian, LatticeGaussian
from napari_deepcrf.lattice.lattice import Lattice

Quality = Literal["fast", "accurate", "exact"]


def check_quality(name: str) -> Quality:
    for known in get_args(Quality):
        if name == known:
            return known  # type: ignore[no-any-return]
    raise ValueError(f"quality: expected one of {', '.join(get_args(Quality))}; got {name!r}")


@dataclass(frozen=True, eq=False)
class PreparedKernel:
    """One Gaussian kernel of one image at given widths."""

    coordinates: Tensor
    """(N, d), not yet divided by the widths."""
    widths: tuple[float, ...]
    lattice: Lattice

    @cached_property
    def row_sum(self) -> Tensor:
        """(N,) K·1, without gradients."""
        with torch.no_grad():
            ones = self.coordinates.new_ones(self.coordinates.shape[0], 1)
            return self.bind(None).apply(ones)[:, 0]

    def bind(self, widths: Tensor | None) -> Gaussian:
        """The kernel as an operator that is differentiable in its widths (d,), if given."""
        if widths is None:
            return LatticeGaussian(self.lattice, self.lattice.weight)
        return LatticeGaussian(
            self.lattice, barycentric_weights(self.coordinates / widths, self.lattice)
        )

    @staticmethod
    def build(
        coordinates: Tensor, widths: Tensor, quality: Quality, backend: str
    ) -> PreparedKernel:
        finer = quality == "accurate"
        lattice = Lattice.build(
            coordinates / widths, ring=finer, passes=2 if finer else 1, backend=backend
        )
        return PreparedKernel(coordinates, tuple(widths.tolist()), lattice)


@dataclass(frozen=True, eq=False)
class PreparedImages:
    """The kernels of a batch of images of one size: ``kernels[image][m]``."""

    shape: tuple[int, ...]
    kernels: tuple[tuple[PreparedKernel, ...], ...]
