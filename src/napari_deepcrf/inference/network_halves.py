"""A score network in two halves: down to the resolution of its score map, and at it.

The first half has the large maps, a small reach and most of the memory traffic: it is done in
pieces that a processor's cache holds. The second reaches far, over maps that are small.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from napari_deepcrf.device import network_precision
from napari_deepcrf.inference.resampling import STRIDE
from napari_deepcrf.inference.tiling import FloatArray
from napari_deepcrf.models import UnaryNetwork

_LAYER_BYTES = 12
"""What a layer's input, output and working copy take, per channel and pixel."""


@dataclass(frozen=True, eq=False)
class NetworkHalves:
    """The layers of a `UnaryNetwork` before and after its last reduction."""

    network: UnaryNetwork
    first: nn.Sequential
    second: nn.Sequential

    @classmethod
    def of(cls, network: UnaryNetwork) -> NetworkHalves:
        layers = list(network.backbone.features)
        last = max(k for k, layer in enumerate(layers) if _reach([layer])[1] > 1)
        second = nn.Sequential(*layers[last + 1 :], network.backbone.score)
        return cls(network, nn.Sequential(*layers[: last + 1]), second)

    @property
    def first_margin(self) -> int:
        """How many cells of the score map the first half's reach spans."""
        return math.ceil(_reach(self.first)[0] / STRIDE)

    @property
    def second_margin(self) -> int:
        """How many cells around itself a score of the second half depends on."""
        return _reach(self.second)[0]

    @property
    def channels(self) -> int:
        """C, of the features between the halves."""
        convolutions = [m for m in self.first.modules() if isinstance(m, nn.Conv2d)]
        return convolutions[-1].out_channels

    def affordable(self, share: int) -> int:
        """Cells a side of the second half whose widest layer takes so many bytes."""
        convolutions = (m for m in self.second.modules() if isinstance(m, nn.Conv2d))
        widest = max(layer.out_channels for layer in convolutions)
        return int((share / (_LAYER_BYTES * widest)) ** 0.5)

    @torch.inference_mode()
    def features(self, reduced: FloatArray, device: torch.device) -> Tensor:
        """(C, h', w') features of a piece (h, w, 3) in 0–255, h' being ⌈h/8⌉ or one more."""
        image = torch.from_numpy(reduced).permute(2, 0, 1)[None].to(device)
        with network_precision(device):
            found: Tensor = self.first((image - self.network.mean) / self.network.std)
        return found[0].float()

    @torch.inference_mode()
    def scores(self, features: Tensor) -> FloatArray:
        """(L, h', w') scores of features (C, h', w')."""
        with network_precision(features.device):
            found = self.second(features[None])
        scores: FloatArray = found[0].float().cpu().numpy()
        return scores


def _reach(layers: Iterable[nn.Module]) -> tuple[int, int]:
    """How many of its inputs on each side an output depends on at most, and their stride.

    Every convolution and pooling is taken as if it came behind all before it.
    """
    jump, radius = 1, 0
    for layer in (part for one in layers for part in one.modules()):
        if isinstance(layer, (nn.Conv2d, nn.MaxPool2d)):
            kernel, stride, dilation = (
                x if isinstance(x, int) else x[0]
                for x in (layer.kernel_size, layer.stride, layer.dilation)
            )
            radius += jump * dilation * (int(kernel) // 2)
            jump *= int(stride)
    return radius, jump
