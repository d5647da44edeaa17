"""Sequential coordinate updates for small problems: the ground truth for the parallel ones."""

from __future__ import annotations

import torch
from torch import Tensor

from napari_deepcrf.crf.mean_field import MeanFieldProblem


def sequential_mean_field(problem: MeanFieldProblem, sweeps: int) -> Tensor:
    """Update one pixel after the other, all others fixed [paper, eq. 5].

    Every update minimises the divergence over its pixel, so that it never increases (with
    symmetric terms). The self term plays no part. Needs the kernels' matrix (N, N): for some
    thousand pixels.

    Returns
    -------
    Tensor
        (sweeps + 1, N, L) marginals after every sweep, the first those of the scores alone.
    """
    scores = problem.scores
    count = scores.shape[0]
    identity = torch.eye(count, dtype=scores.dtype, device=scores.device)
    matrix = torch.stack([term.apply(identity) for term in problem.terms]).sum(0)
    matrix.fill_diagonal_(0)
    mu = problem.compatibility
    marginals = problem.initial()
    trace = [marginals]
    for _ in range(sweeps):
        marginals = marginals.clone()
        for pixel in range(count):
            message = matrix[pixel] @ marginals
            if mu is not None:
                message = message * mu if mu.ndim == 1 else message @ mu
            marginals[pixel] = torch.softmax(scores[pixel] + message, 0)
        trace.append(marginals)
    return torch.stack(trace)
