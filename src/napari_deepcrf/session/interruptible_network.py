"""Stopping a network in the middle of a pass."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from napari_deepcrf.interrupt import raise_if_interrupted

if TYPE_CHECKING:
    from torch import Tensor, nn


@contextmanager
def interruptible_network(module: nn.Module) -> Iterator[None]:
    """Look whether to stop before every layer, and behind it on the way back.

    A step of a wide network on a CPU takes many seconds, a layer rarely one. The hooks are gone
    afterwards: saved and copied modules know nothing of them.
    """
    with ExitStack() as hooks:
        for layer in module.modules():
            if next(layer.children(), None) is None:
                hooks.callback(layer.register_forward_pre_hook(_before).remove)
                hooks.callback(layer.register_forward_hook(_after).remove)
        yield


def _before(_layer: nn.Module, _inputs: Any) -> None:
    raise_if_interrupted()


def _after(_layer: nn.Module, _inputs: Any, output: Any) -> None:
    from torch import Tensor

    if isinstance(output, Tensor) and output.requires_grad:
        output.register_hook(_on_gradient)  # type: ignore[no-untyped-call]


def _on_gradient(_gradient: Tensor) -> None:
    raise_if_interrupted()
