"""The network's scores of a large image, kept as the small maps that the network gives.

The network sees the whole image on one scale, whatever the tiles of the CRF: reduced as it would
reduce an image of ``view`` pixels, which is how many pixels of this one it is to see side by side.
With ``view`` equal to the longer side these are the very scores of `UnaryNetwork`. The maps, an
eighth as long and wide as the reduced image, stay in memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from napari_deepcrf.inference.coarse_maps import coarse_maps
from napari_deepcrf.inference.fine_map import FINE_SIDE, fine_map
from napari_deepcrf.inference.lazy_image import LazyImage
from napari_deepcrf.inference.resampling import STRIDE, interpolation
from napari_deepcrf.inference.tiling import FloatArray
from napari_deepcrf.models import UnaryNetwork
from napari_deepcrf.models.fine_head import FineUnaryNetwork


@dataclass(frozen=True, eq=False)
class ScoreMaps:
    """Scores of an H × W image, interpolated where they are asked for."""

    shape: tuple[int, int]
    maps: tuple[FloatArray, ...]
    """(L, h, w) for each of the network's scales."""

    @property
    def num_classes(self) -> int:
        """L."""
        return len(self.maps[0])

    def at(self, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> FloatArray:
        """(L, R, C) scores at R rows and C columns of the image, both ascending."""
        total = np.zeros((self.num_classes, len(rows), len(columns)), np.float32)
        if total.size == 0:
            return total
        for scores in self.maps:
            (y, down), (x, along) = (
                interpolation(places, size, coarse)
                for places, size, coarse in zip(
                    (rows, columns), self.shape, scores.shape[1:], strict=True
                )
            )
            part = scores[:, y[0] : y[1], x[0] : x[1]]
            lines = along @ part.transpose(2, 0, 1).reshape(part.shape[2], -1)
            lines = lines.reshape(-1, *part.shape[:2]).transpose(1, 2, 0)
            for scores_of_class, lines_of_class in zip(total, lines, strict=True):
                scores_of_class += down @ np.ascontiguousarray(lines_of_class)
        return total / np.float32(len(self.maps))


def score_maps(
    network: UnaryNetwork,
    image: LazyImage,
    *,
    view: int,
    share: int,
    device: torch.device,
    on_progress: Callable[[int, int], None],
) -> ScoreMaps:
    """Score an image on the scale on which the network sees one of ``view`` pixels a side.

    ``share`` is how many bytes the network's widest layer may take, about; ``on_progress`` is told
    how many pieces or windows of the image are done, of how many.
    """
    if isinstance(network, FineUnaryNetwork):
        fine = fine_map(network, image, view=view, device=device, on_progress=on_progress)
        return ScoreMaps(image.shape, (fine,))
    found = coarse_maps(
        network, image, view=view, share=share, device=device, on_progress=on_progress
    )
    return ScoreMaps(image.shape, found)


def map_bytes(network: UnaryNetwork, shape: tuple[int, int], view: int) -> int:
    """What the score maps of an image of this shape take, about."""
    if isinstance(network, FineUnaryNetwork):
        side = min(view, FINE_SIDE)
        pixels = math.prod(shape) * (side / view) ** 2
        scores = pixels if max(shape) <= view else pixels / STRIDE**2
    else:
        factor = network.reduction(view) / STRIDE
        scores = math.prod(shape) * sum((scale * factor) ** 2 for scale in network.scales)
    return int(4 * network.backbone.num_classes * scores)
