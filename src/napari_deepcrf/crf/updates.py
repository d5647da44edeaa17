"""Mean field one update at a time, with the value of the divergence at each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from napari_deepcrf.crf.convergent import convergent_update, convexity_shift
from napari_deepcrf.crf.divergence import kl_divergence
from napari_deepcrf.crf.features import grid
from napari_deepcrf.crf.mean_field import MeanFieldProblem, parallel_update
from napari_deepcrf.crf.reductions import mean


@dataclass(frozen=True, eq=False)
class Update:
    """The state after one mean-field update of a batch."""

    iteration: int
    """0 for the marginals of the unary scores alone."""
    marginals: Tensor
    """(B, L, *S)."""
    kl: Tensor
    """(B,) the divergence of these marginals up to log Z, nats."""
    change: float
    """Mean total variation from the update before over all pixels; infinite for the first."""


def run_updates(
    problem: MeanFieldProblem,
    shape: tuple[int, ...],
    iterations: int,
    *,
    convergent: bool,
    tolerance: float,
) -> Iterator[Update]:
    """Yield the initial state and up to ``iterations`` updates of images of a given shape S.

    Ends early once the mean total variation between two updates is at most ``tolerance``, never
    if that is negative.
    """
    shift = convexity_shift(problem) if convergent else None
    state = problem.initial()
    change = float("inf")
    for iteration in range(iterations + 1):
        message = problem.message(state)
        with torch.no_grad():
            kl = kl_divergence(problem.scores, state, message, images=problem.images)
        yield Update(iteration, grid(state, problem.images, shape), kl, change)
        if iteration == iterations or change <= tolerance:
            return
        before = state
        if shift is None:
            state = parallel_update(problem, message)
        else:
            state = convergent_update(problem, state, message, shift)
        with torch.no_grad():
            change = float(mean(0.5 * (state - before).abs().sum(1)))
