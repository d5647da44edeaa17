"""Backward passes that are not differentiable themselves, and say so."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from torch import Tensor
from torch.autograd.function import once_differentiable


def first_order(backward: Callable[..., Any]) -> Any:
    """PyTorch's ``once_differentiable``, with an error where that can leave out terms in silence.

    ``torch.autograd.grad`` follows only what leads to its inputs. A backward pass that has no graph
    leads nowhere, so that second derivatives would come out without what passes through it.
    """

    @wraps(backward)
    def checked(ctx: Any, *gradients: Tensor | None) -> Any:
        if any(gradient is not None and gradient.requires_grad for gradient in gradients):
            raise NotImplementedError(
                "create_graph: expected False, as there are first derivatives only, got True"
            )
        return backward(ctx, *gradients)

    return once_differentiable(checked)
