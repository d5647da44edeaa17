"""A lattice's filter between factors for every point, as mean field takes it."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from napari_deepcrf.lattice.lattice import Lattice


class ScaledLattice(NamedTuple):
    """The operator x ↦ after ⊙ Sᵀ B S (before ⊙ x) on a lattice."""

    lattice: Lattice
    weight: Tensor
    """(N, d+1): barycentric weights, a function of the widths where those have gradients."""
    before: Tensor
    """(N,) factors of what is splatted."""
    after: Tensor
    """(N,) factors of what is sliced, alpha included."""

    def folded(self) -> tuple[Tensor, Tensor]:
        """The weights (N, d+1) that splat and that slice, with the factors in them."""
        return self.before[:, None] * self.weight, self.after[:, None] * self.weight
