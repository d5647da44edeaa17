"""The Kullback-Leibler divergence that mean field minimises [paper, eq. 4]."""

from __future__ import annotations

import torch
from torch import Tensor


def kl_divergence(scores: Tensor, marginals: Tensor, message: Tensor) -> Tensor:
    """KL(q ‖ p) without the constant log Z, a scalar, in nats.

    Σ_i,l q log q - Σ_i,l q f - ½ Σ_i,l q · message, all arguments (N, L) and ``message`` that of
    these very marginals. Where the self term is kept, the pairs (i, i) count too: then this is
    the function whose stationary points the updates look for, rather than a divergence.

    The sums run in double precision, as their terms cancel.
    """
    q = marginals.double()
    entropy: Tensor = torch.special.entr(q).sum()
    return -entropy - (q * scores).sum() - 0.5 * (q * message).sum()
