"""Sums over all pixels whose order does not depend on the number of threads.

PyTorch cuts a long sum into as many parts as it has threads, which changes the last digits. Blocks
too short for that are summed in one order everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

BLOCK = 2**14
"""Half of what PyTorch hands to a single thread (``at::internal::GRAIN_SIZE``)."""


def total(values: Tensor) -> Tensor:
    """The sum of (N,)."""
    return torch.stack([block.sum() for block in _blocks(values)]).sum()


def mean(values: Tensor) -> Tensor:
    """The mean of (N,)."""
    return total(values) / values.shape[0]


def scaled(values: Tensor, factor: Tensor) -> Tensor:
    """(N,) times a scalar, whose gradient is such a sum."""
    return torch.cat([factor * block for block in _blocks(values)])


def _blocks(values: Tensor) -> Sequence[Tensor]:
    return torch.split(values, BLOCK) if values.device.type == "cpu" else [values]
