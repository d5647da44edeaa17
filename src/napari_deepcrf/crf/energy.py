"""The Kullback-Leibler divergence that mean field minimises [paper, eq. 4]."""

from __future__ import annotations

import torch
from torch import Tensor

from napari_deepcrf.crf.reductions import total


def kl_divergence(scores: Tensor, marginals: Tensor, message: Tensor, *, images: int = 1) -> Tensor:
    """KL(q ‖ p) without the constant log Z of every image, (B,), in nats.

    Σ_i,l q log q - Σ_i,l q f - ½ Σ_i,l q · message, all arguments (N, L), image by image, and
    ``message`` that of these very marginals. Where the self term is kept, the pairs (i, i) count
    too: then this is the function whose stationary points the updates look for, rather than a
    divergence.

    The sums run in double precision, as their terms cancel.
    """
    q = marginals.double()
    by_pixel = -torch.special.entr(q).sum(1) - (q * (scores + 0.5 * message.double())).sum(1)
    return torch.stack([total(part) for part in by_pixel.view(images, -1)])
