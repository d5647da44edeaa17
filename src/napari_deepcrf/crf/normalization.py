"""How a kernel is normalised by its own row sums, K·1."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

Normalization = Literal["symmetric", "before", "after", "none"]


def check_normalization(name: str) -> Normalization:
    for known in get_args(Normalization):
        if name == known:
            return known  # type: ignore[no-any-return]
    known = ", ".join(get_args(Normalization))
    raise ValueError(f"normalization: expected one of {known}; got {name!r}")


def factors(row_sum: Tensor, normalization: Normalization) -> tuple[Tensor, Tensor]:
    """Factors (pre, post), each (N,), with D = K·1 from the filter itself.

    symmetric: D^-1/2 K D^-1/2; before: K D^-1; after: D^-1 K. none: K over its mean row sum,
    one constant, so that weights mean the same in images of every size.
    """
    one = torch.ones_like(row_sum)
    if normalization == "symmetric":
        root = row_sum.rsqrt()
        return root, root
    if normalization == "before":
        return row_sum.reciprocal(), one
    if normalization == "after":
        return one, row_sum.reciprocal()
    return one, one / row_sum.mean()
