"""Parallel mean field by high-dimensional Gaussian filtering [paper, eq. 4, 5]."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from napari_deepcrf.crf.reductions import scaled
from napari_deepcrf.lattice.gaussians import Gaussian


@dataclass(frozen=True, eq=False)
class PairwiseTerm:
    """One weighted, normalised kernel w D_post K D_pre."""

    gaussian: Gaussian
    pre: Tensor
    """(N,) factors before filtering."""
    post: Tensor
    """(N,) factors after filtering."""
    weight: Tensor
    """w, a scalar."""

    def apply(self, values: Tensor) -> Tensor:
        """The term as a linear operator on (N, C)."""
        after = scaled(self.post, self.weight)
        return after[:, None] * self.gaussian.apply(self.pre[:, None] * values)

    def diagonal(self) -> Tensor:
        """(N,) what every pixel would send to itself."""
        return scaled(self.post * self.pre * self.gaussian.diagonal(), self.weight)


@dataclass(frozen=True, eq=False)
class MeanFieldProblem:
    """The CRFs of a batch of images, all tensors in place, differentiable in each of them.

    N = B n points, image by image; kernels connect only pixels of one image.
    """

    scores: Tensor
    """(N, L) unary scores."""
    terms: Sequence[PairwiseTerm]
    compatibility: Tensor | None = None
    """µ as (L, L) symmetric, as its diagonal (L,), or None for Potts (the identity)."""
    self_weight: Tensor | None = None
    """(N,) the terms' summed diagonal where pixels send nothing to themselves, else None."""
    images: int = 1
    """B."""

    def message(self, marginals: Tensor) -> Tensor:
        """(N, L) -> (N, L): Σ_j,l' f_ij(l, l') q_j(l'), the expected pairwise scores."""
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

    def initial(self) -> Tensor:
        """(N, L) the marginals of the unary scores alone."""
        return torch.softmax(self.scores, 1)


def parallel_update(problem: MeanFieldProblem, message: Tensor) -> Tensor:
    """(N, L) q = softmax(f + message) for all pixels at once [paper, eq. 5]."""
    return torch.softmax(problem.scores + message, 1)


def mean_field(problem: MeanFieldProblem, iterations: int, *, keep_all: bool = True) -> Tensor:
    """Run the parallel updates, one kernel after the other.

    Returns (T+1, N, L) marginals, the first those of the scores alone; or (1, N, L), the last.
    """
    marginals = problem.initial()
    trace = [marginals]
    for _ in range(iterations):
        marginals = parallel_update(problem, problem.message(marginals))
        trace.append(marginals)
        if not keep_all:
            del trace[0]
    return torch.stack(trace)
