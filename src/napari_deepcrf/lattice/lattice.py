"""The permutohedral lattice of one set of features, as plain arrays.

Adams, Baek & Davis, "Fast High-Dimensional Filtering Using the Permutohedral Lattice" (2010).
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from napari_deepcrf.lattice.kernels import Kernels, resolve_backend, select_kernels


@dataclass(frozen=True, kw_only=True, eq=False)
class Lattice:
    """Arrays of a lattice, built once per features and read by every kernel.

    N points, d dimensions, M vertices. A lattice filters with K = alpha Sᵀ B S, where S splats,
    B blurs along the d+1 axes and Sᵀ slices.
    """

    vertex: Tensor
    """(N, d+1) int32: the vertex of remainder k of the simplex that encloses each point."""
    weight: Tensor
    """(N, d+1) float: the point's barycentric weight b_ik for that vertex; rows sum to one."""
    rank: Tensor
    """(N, d+1) int8: rank of each elevated coordinate's residual, 0 for the largest."""
    neighbours: Tensor
    """(d+1, M, 2) int32: left and right neighbour on each axis; M where there is none."""
    row_start: Tensor
    """(M+1,) int32: where each vertex's run begins in ``entry``."""
    entry: Tensor
    """(N * (d+1),) int32: flat indices into ``vertex`` and ``weight``, grouped by vertex."""
    passes: int
    """How many times the blur runs; features were scaled by √passes before the embedding."""
    backend: str
    """The kernels that built this lattice and filter on it."""

    @property
    def num_points(self) -> int:
        return self.vertex.shape[0]

    @property
    def num_vertices(self) -> int:
        return self.row_start.shape[0] - 1

    @property
    def dim(self) -> int:
        return self.vertex.shape[1] - 1

    @property
    def kernels(self) -> Kernels:
        return select_kernels(self.backend)

    @property
    def alpha(self) -> float:
        """The factor that makes a vertex's weight on itself one; 1 / (1 + 2^-d) for one pass."""
        return 1.0 / float(self.stencil()[0])

    def stencil(self) -> Tensor:
        """(d+1,) float64: blur weight between vertices whose remainders differ by r = 0..d.

        Two vertices of one simplex are r steps apart along r different axes. As the d+1 axes sum
        to zero, every common shift t of the steps on all axes leads to the same vertex, which
        gives Σ_t c_{t+1}^r c_t^{d+1-r} for the coefficients c of (1 + x/2 + 1/(2x))^passes.
        """
        once = torch.tensor([0.5, 1.0, 0.5], dtype=torch.float64)
        c = torch.ones(1, dtype=torch.float64)
        for _ in range(self.passes):
            padded = torch.nn.functional.pad(c, (2, 2)).unfold(0, 3, 1)
            c = padded @ once
        c = torch.nn.functional.pad(c, (1, 1))
        r = torch.arange(self.dim + 1)[:, None]
        return (c[1:] ** r * c[:-1] ** (self.dim + 1 - r)).sum(1)

    def to(self, device: torch.device) -> Lattice:
        """The same lattice with its arrays on another device."""
        values: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        return Lattice(
            **{k: v.to(device) if isinstance(v, Tensor) else v for k, v in values.items()}
        )

    @staticmethod
    def build(
        features: Tensor, *, ring: bool = False, passes: int = 1, backend: str = "auto"
    ) -> Lattice:
        """Build the lattice of features (N, d), already divided by the kernel widths.

        Parameters
        ----------
        features
            (N, d) float32 or float64, N and d at least 1; gradients are not followed.
        ring
            Also allocate the missing neighbours of the occupied vertices: more exact, larger.
        passes
            Blur this many times on a lattice finer by √passes: more exact, larger. With two
            passes the filter is exactly symmetric and positive semi-definite.
        backend
            ``"auto"``, ``"torch"``, ``"numba"`` or ``"triton"``.

        Raises
        ------
        ValueError
            If the features are not finite, or spread over more lattice cells than a key can
            number (kernel widths too small).
        """
        _check(features, passes)
        features = features.detach()
        name = resolve_backend(backend, features.device, features.dtype)
        return select_kernels(name).build(features, ring=ring, passes=passes)


def _check(features: Tensor, passes: int) -> None:
    if features.ndim != 2 or 0 in features.shape:
        raise ValueError(f"features: expected shape (N, d), got {tuple(features.shape)}")
    if features.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"features: expected float32 or float64, got {features.dtype}")
    if passes < 1:
        raise ValueError(f"passes: expected at least 1, got {passes}")
    if not bool(torch.isfinite(features).all()):
        raise ValueError("features: expected finite numbers, got NaN or infinity")
