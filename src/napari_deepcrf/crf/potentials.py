"""Unary scores from what people have: probabilities, labels, other tools' energies."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def scores_from_probabilities(probabilities: Tensor, *, minimum: float = 1e-6) -> Tensor:
    """Return log max(p, minimum) for probabilities (..., L, *S) of any shape.

    The minimum keeps a label that a model has ruled out within the CRF's reach.

    Raises
    ------
    ValueError
        If a probability is negative or not finite, or the minimum is not in (0, 1).
    """
    if not 0 < minimum < 1:
        raise ValueError(f"minimum: expected a number between 0 and 1, got {minimum}")
    if not bool(torch.isfinite(probabilities).all()) or bool((probabilities < 0).any()):
        raise ValueError("probabilities: expected finite numbers of at least 0")
    return probabilities.clamp(min=minimum).log()


def scores_from_labels(
    labels: Tensor, num_classes: int, *, confidence: float = 0.9, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Scores (L, *S) from labels (*S): 0 unlabelled, k for class k - 1.

    A labelled pixel gives its class the probability ``confidence`` and shares the rest among the
    others; an unlabelled one is flat.

    Raises
    ------
    ValueError
        If a label is outside 0..num_classes, the confidence outside (1/L, 1), or there are fewer
        than two classes.
    """
    if num_classes < 2:
        raise ValueError(f"num_classes: expected at least 2, got {num_classes}")
    if not 1 / num_classes < confidence < 1:
        raise ValueError(
            f"confidence: expected a number between 1/{num_classes} and 1, got {confidence}"
        )
    labels = labels.long()
    if labels.numel() and (int(labels.min()) < 0 or int(labels.max()) > num_classes):
        raise ValueError(
            f"labels: expected 0 to {num_classes}, got {int(labels.min())} to {int(labels.max())}"
        )
    other = math.log((1 - confidence) / (num_classes - 1))
    table = torch.full((num_classes + 1, num_classes), other, dtype=dtype, device=labels.device)
    table[0] = -math.log(num_classes)
    table[1:].fill_diagonal_(math.log(confidence))
    return table[labels].movedim(-1, 0)


def scores_from_energies(energies: Tensor, shape: Sequence[int]) -> Tensor:
    """Scores (L, *shape) from pydensecrf's unary energies (L, N): the same with the sign changed.

    pydensecrf minimises energies, this package maximises scores as the paper does. Its pairwise
    ``compat`` is our kernel weight with the sign it has.

    Raises
    ------
    ValueError
        If the energies are not (L, N) for the N pixels of ``shape``.
    """
    count = math.prod(shape)
    if energies.ndim != 2 or energies.shape[1] != count:
        raise ValueError(f"energies: expected shape (L, {count}), got {tuple(energies.shape)}")
    return -energies.reshape(energies.shape[0], *shape)
