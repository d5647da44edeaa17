"""Exponential moving average of a network's weights (Polyak & Juditsky 1992)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class WeightAverage:
    """Follows a network's parameters and floating-point buffers; a decay of 0 copies them."""

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.network, self.decay = network, decay
        self._shadow = {name: value.detach().clone() for name, value in self._values().items()}
        self._updates = 0

    def _values(self) -> dict[str, Tensor]:
        return dict(self.network.state_dict())

    @torch.no_grad()
    def update(self) -> None:
        """Move towards the network's present weights, faster in the first steps."""
        self._updates += 1
        decay = min(self.decay, self._updates / (self._updates + 10)) if self.decay else 0.0
        for name, value in self._values().items():
            if value.is_floating_point():
                self._shadow[name].lerp_(value, 1 - decay)
            else:
                self._shadow[name].copy_(value)

    def state(self) -> dict[str, Tensor]:
        """A copy of the averaged weights, named as in the network."""
        return {name: value.clone() for name, value in self._shadow.items()}

    def load(self, state: dict[str, Tensor], updates: int) -> None:
        """Continue from weights that `state` gave after ``updates`` updates."""
        for name, value in self._shadow.items():
            value.copy_(state[name])
        self._updates = updates

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The network with the averaged weights, for the length of the block."""
        original = {name: value.clone() for name, value in self._values().items()}
        self.network.load_state_dict(self._shadow)
        try:
            yield
        finally:
            self.network.load_state_dict(original)
