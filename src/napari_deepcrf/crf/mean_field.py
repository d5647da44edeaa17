"""Parallel mean field by high-dimensional Gaussian filtering [paper, eq. 4, 5]."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from napari_deepcrf.lattice.gaussians import Gaussian


@dataclass(frozen=True, eq=False)
class PairwiseTerm:
    """One weighted, normalised kernel w D_post K D_pre; the weight is part of ``post``."""

    gaussian: Gaussian
    pre: Tensor
    """(N,) factors before filtering."""
    post: Tensor
    """(N,) factors after filtering, times the kernel's weight."""

    def apply(self, marginals: Tensor) -> Tensor:
        return self.post[:, None] * self.gaussian.apply(self.pre[:, None] * marginals)

    def diagonal(self) -> Tensor:
        return self.post * self.pre * self.gaussian.diagonal()


@dataclass(frozen=True, eq=False)
class MeanFieldProblem:
    """What the updates of one image need, all differentiable.

    The update is q ← softmax(scores + (Σ_m term_m(q) - self_weight ⊙ q) µ).
    """

    scores: Tensor
    """(N, L)."""
    terms: Sequence[PairwiseTerm]
    compatibility: Tensor | None = None
    """µ as (L, L) symmetric, as its diagonal (L,), or None for Potts (the identity)."""
    self_weight: Tensor | None = None
    """(N,) the kernels' summed diagonal where the self term is left out, else None."""

    def message(self, marginals: Tensor) -> Tensor:
        """(N, L) -> (N, L): the expected pairwise score of every label."""
        total = torch.zeros_like(marginals)
        for term in self.terms:
            total = total + term.apply(marginals)
        if self.self_weight is not None:
            total = total - self.self_weight[:, None] * marginals
        if self.compatibility is None:
            return total
        if self.compatibility.ndim == 1:
            return total * self.compatibility
        return total @ self.compatibility


def mean_field(problem: MeanFieldProblem, iterations: int) -> Tensor:
    """Run the updates; (T+1, N, L) marginals, the first softmax(scores)."""
    marginals = torch.softmax(problem.scores, 1)
    trace = [marginals]
    for _ in range(iterations):
        marginals = torch.softmax(problem.scores + problem.message(marginals), 1)
        trace.append(marginals)
    return torch.stack(trace)
