"""What inference needs of an image and is worth keeping: lattices and row sums."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from napari_deepcrf.lattice.brute_force import BruteForceGaussian
from napari_deepcrf.lattice.filter import barycentric_weights
from napari_deepcrf.lattice.gaussians import Gaussian, LatticeGaussian
from napari_deepcrf.lattice.grid import GridGaussian, spatial_taps, sums_within
from napari_deepcrf.lattice.lattice import Lattice

GRID_RADIUS = {torch.float32: 5.5, torch.float64: 9.0}
"""Widths at which a grid's Gaussian is cut off, where it falls below its precision."""


@dataclass(frozen=True)
class Method:
    """How a kernel is applied."""

    kind: Literal["lattice", "grid", "brute force"]
    """``"grid"`` is exact and separable, for kernels over positions alone."""
    ring: bool = False
    passes: int = 1
    """For lattices; see ``Lattice.build``."""


@dataclass(frozen=True, eq=False)
class PreparedKernel(ABC):
    """One Gaussian kernel of one image at given widths."""

    coordinates: Tensor
    """(N, d), not yet divided by the widths: x, y, (z,) then the channels."""
    widths: tuple[float, ...]
    method: Method

    @abstractmethod
    def bind(self, widths: Tensor | None) -> Gaussian:
        """The kernel as an operator, differentiable in its widths (d,) where they are given."""

    @cached_property
    def row_sum(self) -> Tensor:
        """(N,) K·1, without gradients."""
        with torch.no_grad():
            ones = self.coordinates.new_ones(self.coordinates.shape[0], 1)
            return self.bind(None).apply(ones)[:, 0]

    def serves(self, coordinates: Tensor, widths: Tensor, method: Method) -> bool:
        """Whether building anew from these would give the same kernel."""
        return (
            self.method == method
            and self.widths == tuple(widths.tolist())
            and self.coordinates.dtype == coordinates.dtype
            and self.coordinates.device == coordinates.device
            and torch.equal(self.coordinates, coordinates)
        )

    def _given(self, widths: Tensor | None) -> Tensor:
        return self.coordinates.new_tensor(self.widths) if widths is None else widths


@dataclass(frozen=True, eq=False)
class PreparedLattice(PreparedKernel):
    """A kernel on a permutohedral lattice."""

    lattice: Lattice

    def bind(self, widths: Tensor | None) -> Gaussian:
        if widths is None:
            return LatticeGaussian(self.lattice, self.lattice.weight)
        features = _lattice_features(self.coordinates, widths, self.method)
        return LatticeGaussian(self.lattice, barycentric_weights(features, self.lattice))


@dataclass(frozen=True, eq=False)
class PreparedGrid(PreparedKernel):
    """A kernel over positions alone, exact and separable."""

    shape: tuple[int, ...]

    @cached_property
    def row_sum(self) -> Tensor:
        """(N,) K·1, the product of every axis's own, without gradients."""
        with torch.no_grad():
            sums = self.coordinates.new_ones(1)
            for size, taps in zip(self.shape, self.bind(None).taps, strict=True):
                sums = (sums[:, None] * sums_within(taps, size)).flatten()
            return sums

    def bind(self, widths: Tensor | None) -> GridGaussian:
        given = self._given(widths)
        return GridGaussian(self.shape, spatial_taps(given, self.shape, GRID_RADIUS[given.dtype]))


@dataclass(frozen=True, eq=False)
class PreparedPoints(PreparedKernel):
    """A kernel by brute force over all pairs of pixels."""

    def bind(self, widths: Tensor | None) -> Gaussian:
        return BruteForceGaussian(self.coordinates / self._given(widths))


@dataclass(frozen=True, eq=False)
class PreparedImages:
    """The kernels of a batch of images of one size: ``kernels[image][m]``."""

    shape: tuple[int, ...]
    channels: int
    kernels: tuple[tuple[PreparedKernel, ...], ...]


def prepare_kernel(
    coordinates: Tensor, widths: Tensor, method: Method, *, shape: tuple[int, ...], backend: str
) -> PreparedKernel:
    """Build one kernel from coordinates (N, d) and widths (d,).

    Raises
    ------
    ValueError
        If lattice keys leave their range.
    """
    numbers = tuple(widths.tolist())
    if method.kind == "grid":
        return PreparedGrid(coordinates, numbers, method, shape)
    if method.kind == "brute force":
        return PreparedPoints(coordinates, numbers, method)
    lattice = Lattice.build(
        _lattice_features(coordinates, widths, method),
        ring=method.ring,
        passes=method.passes,
        backend=backend,
    )
    return PreparedLattice(coordinates, numbers, method, lattice)


def _lattice_features(coordinates: Tensor, widths: Tensor, method: Method) -> Tensor:
    """Features in the order and place that suit the lattice.

    One pass gives Krähenbühl & Koltun's very results, and so has their features: positions first,
    from the corner of the image and from black. With two passes colours come first, which is
    closer to the exact marginals, and the widths scale about the mean feature: a change of width
    then moves the points across the lattice as little as it can, and the derivative by the width
    has little of the lattice's own structure in it (docs/accuracy.md).
    """
    if method.passes == 1:
        return coordinates / widths
    return ((coordinates - coordinates.mean(0)) / widths).flip(1)
