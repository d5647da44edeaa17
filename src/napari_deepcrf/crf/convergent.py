"""Mean field that always converges: the concave-convex procedure.

Krähenbühl & Koltun, "Parameter Learning and Convergent Inference for Dense Random Fields" (2013),
section 3; Yuille & Rangarajan, "The Concave-Convex Procedure" (2003). The divergence

    J(q) = Σ q log q - Σ q f - ½ qᵀ A q,      A the whole pairwise operator,

is split with any c_i for which A + diag(c) is positive semi-definite:

    J(q) = [Σ q log q - Σ q f + ½ Σ c q²]  -  ½ qᵀ (A + diag(c)) q.

The second part is concave. Replaced by its tangent at q_t it bounds J from above, and what is
left, one strictly convex program for every pixel,

    min Σ_l q_l log q_l - Σ_l q_l a_l + c/2 Σ_l q_l²,    a = f + A q_t + c q_t,    Σ_l q_l = 1,

gives a q_{t+1} with J(q_{t+1}) ≤ J(q_t). For c = 0 it is the plain softmax.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd import Function

from napari_deepcrf.crf.mean_field import MeanFieldProblem, PairwiseTerm
from napari_deepcrf.lattice.first_order import first_order

MULTIPLIER_STEPS = 50
LOG_STEPS = 50
"""Most steps of the outer and the inner Newton iteration: random programs of 2 to 200 labels, with
numbers from 0.001 to 1000, take up to 11 and 9."""
ROUNDING = 32
"""An iteration has converged once it moves by less than so many rounding errors."""


def convexity_shift(problem: MeanFieldProblem) -> Tensor:
    """(N,) c_i for which A + diag(c) is positive semi-definite, where the terms are symmetric.

    With kernels K (positive semi-definite), their diagonal s left out and compatibility µ,
    A = (K - diag s) ⊗ µ. Taking c = s λ_max(µ) covers the missing diagonal. A negative λ_min(µ)
    turns K over, which takes another -λ_min(µ) λ_max(K).
    """
    low, high = _eigenvalue_range(problem)
    shift = torch.zeros_like(problem.scores[:, 0])
    if problem.self_weight is not None:
        shift = shift + problem.self_weight * high.clamp(min=0)
    if bool(low < 0):
        bounds = [_eigenvalue_bound(term, problem.images) for term in problem.terms]
        by_image = low * torch.stack(bounds).sum(0)
        shift = shift - by_image.repeat_interleave(shift.shape[0] // problem.images)
    return shift


def convergent_update(
    problem: MeanFieldProblem, marginals: Tensor, message: Tensor, shift: Tensor
) -> Tensor:
    """One step of the concave-convex procedure from marginals (N, L) and their message (N, L).

    ``shift`` is ``convexity_shift(problem)``.
    """
    target = problem.scores + message + shift[:, None] * marginals
    return solve_pixels(target, shift)


def solve_pixels(target: Tensor, shift: Tensor) -> Tensor:
    """Minimise Σ q log q - q·a + c/2 |q|² over the simplex for every pixel.

    Parameters
    ----------
    target
        (N, L) linear terms a.
    shift
        (N,) c ≥ 0.

    Returns
    -------
    Tensor
        (N, L) marginals, differentiable once in both (by the implicit function theorem).
    """
    result = _SolvePixels.apply(target, shift)  # type: ignore[no-untyped-call]
    return cast("Tensor", result)


class _SolvePixels(Function):
    """Stationarity log q + c q = a - λ and Σ q = 1, by Newton's method for all pixels at once."""

    @staticmethod
    def forward(ctx: Any, target: Tensor, shift: Tensor) -> Tensor:
        c = shift[:, None]
        # At λ = max a - c the largest q is one: Σ q ≥ 1. From there Newton's method for the
        # decreasing, convex Σ q(λ) = 1 approaches the root from one side only.
        a = target - target.amax(1, keepdim=True)
        multiplier = -c
        tolerance = ROUNDING * torch.finfo(target.dtype).eps
        for _ in range(MULTIPLIER_STEPS):
            q = _stationary(a - multiplier, c)
            excess = q.sum(1, keepdim=True) - 1
            step = excess / (q / (1 + c * q)).sum(1, keepdim=True)
            multiplier = multiplier + step
            if float(excess.max()) < tolerance:
                break
        q = _stationary(a - multiplier, c)
        q = q / q.sum(1, keepdim=True)
        ctx.save_for_backward(q, shift)
        return q

    @staticmethod
    @first_order
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """With h = q / (1 + c q): dq = h (da - q dc - dλ), dλ such that Σ dq = 0."""
        q, shift = ctx.saved_tensors
        h = q / (1 + shift[:, None] * q)
        mean = (h * gradient).sum(1, keepdim=True) / h.sum(1, keepdim=True)
        grad_target = h * (gradient - mean)
        return grad_target, -(grad_target * q).sum(1)


def _stationary(right: Tensor, c: Tensor) -> Tensor:
    """Solve log q + c q = r for q > 0: Newton's method for x + c e^x = r in x = log q.

    The left side is convex in x with a slope of at least one, so that every iterate after the
    first step lies above the root, and the next one nearer. At the start, x = min(r, log(max(r, 1)
    / c)), it exceeds r by max(r, 1) at the most.
    """
    x = torch.minimum(right, (right.clamp(min=1.0) / c).log())
    tolerance = ROUNDING * torch.finfo(right.dtype).eps
    for _ in range(LOG_STEPS):
        q = x.exp()
        step = (right - x - c * q) / (1 + c * q)
        x = x + step
        if float((step.abs() / (1 + x.abs())).max()) < tolerance:
            break
    return x.exp()


def _eigenvalue_range(problem: MeanFieldProblem) -> tuple[Tensor, Tensor]:
    """The least and the largest eigenvalue of µ, scalars."""
    mu = problem.compatibility
    if mu is None:
        one = problem.scores.new_ones(())
        return one, one
    values: Tensor = mu if mu.ndim == 1 else torch.linalg.eigvalsh(mu)
    return values.min(), values.max()


def _eigenvalue_bound(term: PairwiseTerm, images: int) -> Tensor:
    """(B,) λ_max ≤ max_i (Kv)_i / v_i, for a non-negative K and any positive v (Collatz).

    With v = 1 / pre it is the kernel's weight under symmetric normalisation.
    """
    v = term.pre.reciprocal()[:, None]
    return (term.apply(v) / v).view(images, -1).amax(1)
