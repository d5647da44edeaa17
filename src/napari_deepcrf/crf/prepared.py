"""What inference needs of images and is worth keeping: lattices and row sums."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from napari_deepcrf.crf.features import PixelGrid
from napari_deepcrf.lattice.brute_force import BruteForceGaussian
from napari_deepcrf.lattice.filter import barycentric_weights
from napari_deepcrf.lattice.gaussians import Gaussian, LatticeGaussian
from napari_deepcrf.lattice.grid import GridGaussian, spatial_taps
from napari_deepcrf.lattice.lattice import Lattice

GRID_RADIUS = {torch.float32: 5.5, torch.float64: 9.0}
"""How many widths from its centre a grid's Gaussian is cut off: it is below a rounding error."""


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
    """One Gaussian kernel on a batch of images, at given widths."""

    pixels: PixelGrid
    coloured: bool
    """Whether the kernel compares colours too, not positions alone."""
    widths: tuple[float, ...]
    """(d,) in the order of the coordinates."""
    method: Method

    @abstractmethod
    def bind(self, widths: Tensor | None) -> Gaussian:
        """The kernel as an operator, differentiable in its widths (d,) where they are given."""

    @cached_property
    def row_sum(self) -> Tensor:
        """(N,) K·1, without gradients."""
        with torch.inference_mode(False), torch.no_grad():  # later callers may learn weights
            return self.bind(None).row_sum()

    def serves(self, pixels: PixelGrid, *, coloured: bool, widths: Tensor, method: Method) -> bool:
        """Whether building anew from these would give the same kernel."""
        return (
            self.method == method
            and self.coloured == coloured
            and self.widths == tuple(widths.tolist())
            and self.pixels.equals(pixels, coloured=coloured)
        )

    def _given(self, widths: Tensor | None) -> Tensor:
        return self.pixels.images.new_tensor(self.widths) if widths is None else widths


@dataclass(frozen=True, eq=False)
class PreparedLattice(PreparedKernel):
    """A kernel on a permutohedral lattice."""

    lattice: Lattice

    def bind(self, widths: Tensor | None) -> Gaussian:
        if widths is None:
            return LatticeGaussian(self.lattice, self.lattice.weight)
        features = lattice_features(self.pixels, widths, self.method, coloured=self.coloured)
        return LatticeGaussian(self.lattice, barycentric_weights(features, self.lattice))


@dataclass(frozen=True, eq=False)
class PreparedGrid(PreparedKernel):
    """A kernel over positions alone, exact and separable."""

    def bind(self, widths: Tensor | None) -> GridGaussian:
        given, shape = self._given(widths), self.pixels.shape
        taps = spatial_taps(given, shape, GRID_RADIUS[given.dtype])
        return GridGaussian(shape, taps, self.pixels.count)


@dataclass(frozen=True, eq=False)
class PreparedPoints(PreparedKernel):
    """A kernel by brute force over all pairs of pixels of an image."""

    def bind(self, widths: Tensor | None) -> Gaussian:
        planes = self.pixels.coordinates(coloured=self.coloured)
        scaled = planes / self._given(widths)[:, None, None]
        return BruteForceGaussian(scaled.flatten(1).T, self.pixels.count)


@dataclass(frozen=True, eq=False)
class PreparedImages:
    """The kernels of a batch of images of one size, each one operator for the whole batch."""

    pixels: PixelGrid
    kernels: tuple[PreparedKernel, ...]


def prepare_kernel(
    pixels: PixelGrid, widths: Tensor, method: Method, *, coloured: bool, backend: str
) -> PreparedKernel:
    """Build one kernel with widths (d,), in the order of the coordinates.

    Raises
    ------
    ValueError
        If lattice keys leave their range.
    """
    own = pixels, coloured, tuple(widths.tolist()), method
    if method.kind == "grid":
        return PreparedGrid(*own)
    if method.kind == "brute force":
        return PreparedPoints(*own)
    lattice = Lattice.build(
        lattice_features(pixels, widths, method, coloured=coloured),
        ring=method.ring,
        passes=method.passes,
        images=pixels.count,
        backend=backend,
    )
    return PreparedLattice(*own, lattice)


def lattice_features(
    pixels: PixelGrid, widths: Tensor, method: Method, *, coloured: bool
) -> Tensor:
    """Features (N, d) in the order and place that suit the lattice, a view of planes (d, N).

    One pass gives the results of Krähenbühl & Koltun's code, and so has its features: positions
    first, from the corner of the image and from black. With two passes colours come first and the
    mean feature of every image is the origin, which is closer to the exact marginals.

    A Gaussian does not depend on where the origin lies, but the lattice does, and a width that
    scaled about a far origin would drag the points across many of its cells. Derivatives by the
    widths therefore hold the mean feature where it is (docs/accuracy.md).
    """
    planes = pixels.coordinates(coloured=coloured)
    divisors = widths[:, None, None]
    if method.passes == 2:
        return ((planes - planes.mean(2, keepdim=True)) / divisors).flip(0).flatten(1).T
    features = planes / divisors
    if widths.requires_grad:
        centre = planes.mean(2, keepdim=True) / divisors
        features = features + (centre.detach() - centre)
    return features.flatten(1).T
