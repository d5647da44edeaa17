"""The permutohedral lattice of one set of features, as plain arrays.

Adams, Baek & Davis, "Fast High-Dimensional Filtering Using the Permutohedral Lattice" (2010).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from napari_deepcrf.lattice.kernels import Kernels, resolve_backend, select_kernels

# With one pass the filter is that of Adams et al. For two, the finer lattice and the narrower taps
# with the smallest error of the marginals against brute force (docs/accuracy.md).
_FEATURE_SCALE = {1: 1.0, 2: 1.28}
_BLUR_TAP = {1: 0.5, 2: 0.39}


def feature_scale(passes: int) -> float:
    """What features are multiplied by before they are embedded for so many blur passes."""
    return _FEATURE_SCALE[passes]


@dataclass(frozen=True, kw_only=True, eq=False)
class Lattice:
    """Arrays of a lattice, built once per features and read by every set of kernels.

    N points, d dimensions, M vertices. A lattice filters with K = alpha Sᵀ B S, where S splats,
    B blurs along the d+1 axes and Sᵀ slices. Every set of kernels has a subclass of its own, which
    stores ``vertex`` or computes it when it is asked for.
    """

    weight: Tensor
    """(N, d+1) float: the point's barycentric weight b_ik for that vertex; rows sum to one."""
    rank: Tensor
    """(N, d+1) int8: rank of each elevated coordinate's residual, 0 for the largest."""
    neighbours: Tensor
    """(d+1, M, 2) int32: left and right neighbour on each axis; M where there is none."""
    passes: int
    """How many times the blur runs, 1 or 2; a lattice for two passes is finer."""
    backend: str
    """The kernels that built this lattice and filter on it."""

    @cached_property
    def vertex(self) -> Tensor:
        """(N, d+1) int32: the vertex of remainder k of the simplex that encloses each point."""
        raise NotImplementedError

    @property
    def num_points(self) -> int:
        """N."""
        return self.weight.shape[0]

    @property
    def num_vertices(self) -> int:
        """M."""
        return self.neighbours.shape[1]

    @cached_property
    def entry(self) -> Tensor:
        """(N * (d+1),) int32: flat indices into ``vertex`` and ``weight``, grouped by vertex."""
        return torch.argsort(self.vertex.flatten(), stable=True).int()

    @cached_property
    def row_start(self) -> Tensor:
        """(M+1,) int32: where each vertex's run begins in ``entry``."""
        counts = torch.bincount(self.vertex.flatten(), minlength=self.num_vertices)
        return torch.nn.functional.pad(counts.cumsum(0), (1, 0)).int()

    @property
    def dim(self) -> int:
        """d, the feature dimensions."""
        return self.weight.shape[1] - 1

    @property
    def tap(self) -> float:
        """The blur's weight on either neighbour; 1 on the vertex itself."""
        return _BLUR_TAP[self.passes]

    @property
    def kernels(self) -> Kernels:
        """What splats, blurs and slices on this lattice."""
        return select_kernels(self.backend)

    @cached_property
    def alpha(self) -> float:
        """The factor that makes a vertex's weight on itself one; 1 / (1 + 2^-d) for one pass."""
        return 1.0 / float(self.stencil()[0])

    def blur_order(self, *, reverse: bool = False) -> list[int]:
        """The axes in the order of the blur; see ``Kernels.blur``."""
        axes = list(range(self.dim + 1))
        order = [axis for number in range(self.passes) for axis in axes[:: -1 if number % 2 else 1]]
        return order[::-1] if reverse else order

    def stencil(self) -> Tensor:
        """(d+1,) float64: blur weight between vertices whose remainders differ by r = 0..d.

        Two vertices of one simplex are r steps apart along r different axes. As the d+1 axes sum
        to zero, every common shift t of the steps on all axes leads to the same vertex, which
        gives Σ_t c_{t+1}^r c_t^{d+1-r} for the coefficients c of (tap/x + 1 + tap x)^passes.
        """
        once = torch.tensor([self.tap, 1.0, self.tap], dtype=torch.float64)
        c = torch.ones(1, dtype=torch.float64)
        for _ in range(self.passes):
            padded = torch.nn.functional.pad(c, (2, 2)).unfold(0, 3, 1)
            c = padded @ once
        c = torch.nn.functional.pad(c, (1, 1))
        r = torch.arange(self.dim + 1)[:, None]
        return (c[1:] ** r * c[:-1] ** (self.dim + 1 - r)).sum(1)

    @staticmethod
    def build(
        features: Tensor,
        *,
        ring: bool = False,
        passes: int = 1,
        images: int = 1,
        backend: str = "auto",
    ) -> Lattice:
        """Build the lattice of features (N, d), already divided by the kernel widths.

        Parameters
        ----------
        features
            (N, d) float32 or float64, N and d at least 1; gradients are not followed.
        ring
            Also allocate the missing neighbours of the occupied vertices: more exact, larger.
        passes
            Blur once, or twice on a finer lattice: more exact, larger. With two passes the filter
            is exactly symmetric and positive semi-definite.
        images
            The points are those of so many images of N / images points each, one image after the
            other; images share no vertex, so that the lattice keeps them apart exactly.
        backend
            ``"auto"``, ``"torch"``, ``"numba"`` or ``"triton"``.

        Raises
        ------
        ValueError
            For another shape, number of passes or images, or an unknown backend; if the features
            are not finite, or spread over more lattice cells than a key can number (kernel widths
            too small).
        TypeError
            For anything but a tensor of float32 or float64, or one that the backend does not take.
        """
        _check(features, passes, images)
        features = features.detach()
        name = resolve_backend(backend, features.device, features.dtype)
        return select_kernels(name).build(features, ring=ring, passes=passes, images=images)


def _check(features: Tensor, passes: int, images: int) -> None:
    if not isinstance(features, Tensor):
        raise TypeError(f"features: expected a torch.Tensor, got {type(features).__name__}")
    if features.ndim != 2 or 0 in features.shape:
        raise ValueError(f"features: expected shape (N, d), got {tuple(features.shape)}")
    if features.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"features: expected float32 or float64, got {features.dtype}")
    if passes not in _BLUR_TAP:
        raise ValueError(f"passes: expected 1 or 2, got {passes}")
    if images < 1 or features.shape[0] % images:
        raise ValueError(f"images: expected a divisor of {features.shape[0]} points, got {images}")
    if not math.isfinite(float(features.detach().sum())):  # one pass, no temporary
        _refuse_unless_finite(features)


def _refuse_unless_finite(features: Tensor) -> None:
    if not all(math.isfinite(bound) for bound in map(float, torch.aminmax(features.detach()))):
        raise ValueError("features: expected finite numbers, got NaN or infinity")
