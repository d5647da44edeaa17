"""The Kullback-Leibler divergence that mean field minimises [paper, eq. 4]."""

from __future__ import annotations

import torch
from torch import Tensor

from napari_deepcrf.crf.reductions import total


def kl_divergence(scores: Tensor, marginals: Tensor, message: Tensor, *, images: int = 1) -> Tensor:
    """KL(q ‖ p) up to the constant log Z of every image, in nats [paper, eq. 4].

    That is Σ_il q log q - Σ_il q f - ½ Σ_il q · message, summed in double precision, as the terms
    cancel. Where the self term is kept, the pairs (i, i) count too: then this is the function whose
    stationary points the updates look for, rather than a divergence.

    Parameters
    ----------
    scores, marginals
        (N, L) f and q, image by image.
    message
        (N, L) that of these very marginals, ``MeanFieldProblem.message``.
    images
        B, a divisor of N.

    Returns
    -------
    Tensor
        (B,) float64.
    """
    q = marginals.double()
    by_pixel = -torch.special.entr(q).sum(1) - (q * (scores + 0.5 * message.double())).sum(1)
    return torch.stack([total(part) for part in by_pixel.view(images, -1)])
