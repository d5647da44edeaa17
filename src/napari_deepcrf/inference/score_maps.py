"""The network's scores of a large image, kept as the small maps that the network gives.

The network sees the whole image on one scale, whatever the tiles of the CRF: reduced as it would
reduce an image of ``view`` pixels, which is how many pixels of this one it is to see side by side.
With ``view`` equal to the longer side these are the very scores of `UnaryNetwork`. The reduced
image is scored in windows that overlap by the network's reach, so that they leave no seam; the
maps, an eighth as long and wide as the reduced image, stay in memory.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from napari_deepcrf.device import network_precision
from napari_deepcrf.inference.fine_map import FINE_SIDE, fine_map
from napari_deepcrf.inference.lazy_image import LazyImage
from napari_deepcrf.inference.resampling import STRIDE, FloatArray, interpolation, reduce_window
from napari_deepcrf.inference.tiling import Span
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
    window: int,
    device: torch.device,
    on_progress: Callable[[int, int], None],
) -> ScoreMaps:
    """Score an image on the scale on which the network sees one of ``view`` pixels a side.

    ``window`` is the most pixels a side of the reduced image that the network is given at once.
    """
    if isinstance(network, FineUnaryNetwork):
        found = fine_map(network, image, view=view, device=device, on_progress=on_progress)
        return ScoreMaps(image.shape, (found,))
    plans = [
        _Plan.of(network, image.shape, scale * network.reduction(view), window)
        for scale in network.scales
    ]
    done, total = 0, sum(len(plan.windows) for plan in plans)
    maps = []
    for plan in plans:
        scores = None
        for rows, columns in plan.windows:
            on_progress(done, total)
            found = _score_window(network, image, plan, rows, columns, device)
            if scores is None:
                scores = np.zeros((len(found), *plan.coarse), np.float32)
            scores[:, slice(*rows), slice(*columns)] = found
            done += 1
        assert scores is not None
        maps.append(scores)
    on_progress(done, total)
    return ScoreMaps(image.shape, tuple(maps))


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


@dataclass(frozen=True)
class _Plan:
    """One scale: the size of the reduced image, of its score map, and the map's windows."""

    size: tuple[int, int]
    coarse: tuple[int, int]
    margin: int
    """Scores on each side that a window computes for nothing but the scores inside."""
    windows: tuple[tuple[Span, Span], ...]

    @classmethod
    def of(cls, network: UnaryNetwork, shape: tuple[int, int], factor: float, window: int) -> _Plan:
        size = tuple(max(STRIDE, round(n * factor)) for n in shape)
        coarse = tuple(_coarse_size(network, n) for n in size)
        margin = math.ceil(reach(network.backbone) / STRIDE)
        spans = [_spans(n, max(window // STRIDE, 4 * margin), margin) for n in coarse]
        windows = tuple((rows, columns) for rows in spans[0] for columns in spans[1])
        return cls((size[0], size[1]), (coarse[0], coarse[1]), margin, windows)


def reach(backbone: nn.Module) -> int:
    """How many pixels around itself a score depends on, at most.

    Every convolution and pooling is taken as if it came behind all before it.
    """
    jump, radius = 1, 0
    for layer in backbone.modules():
        if isinstance(layer, (nn.Conv2d, nn.MaxPool2d)):
            kernel, stride, dilation = (
                x if isinstance(x, int) else x[0]
                for x in (layer.kernel_size, layer.stride, layer.dilation)
            )
            radius += jump * dilation * (int(kernel) // 2)
            jump *= int(stride)
    return radius


def _coarse_size(network: UnaryNetwork, size: int) -> int:
    """Scores along an axis of so many pixels: what the network makes of a thin strip."""
    with torch.inference_mode():
        strip = network.mean.new_zeros(1, 3, size, STRIDE)
        return int(network.coarse(strip).shape[2])


def _spans(count: int, window: int, margin: int) -> list[Span]:
    """Cuts ``count`` scores evenly so that each part and its margins fit a window."""
    parts = 1 if count <= window else math.ceil(count / (window - 2 * margin))
    ends = [count * k // parts for k in range(parts + 1)]
    return list(itertools.pairwise(ends))


def _score_window(
    network: UnaryNetwork,
    image: LazyImage,
    plan: _Plan,
    rows: Span,
    columns: Span,
    device: torch.device,
) -> FloatArray:
    """(L, h, w) scores of one window of the map."""
    pieces = []
    for (first, last), count, size in zip((rows, columns), plan.coarse, plan.size, strict=True):
        begin = max(0, first - plan.margin)
        end = size if last + plan.margin >= count else (last + plan.margin) * STRIDE
        pieces.append((begin, (begin * STRIDE, end)))
    (top, tall), (left, wide) = pieces
    reduced = reduce_window(image, plan.size, tall, wide)
    tensor = torch.from_numpy(reduced).permute(2, 0, 1)[None].to(device)
    with torch.inference_mode(), network_precision(device):
        scores = network.coarse(tensor)[0].float().cpu().numpy()
    y, x = rows[0] - top, columns[0] - left
    kept: FloatArray = scores[:, y : y + rows[1] - rows[0], x : x + columns[1] - columns[0]]
    return kept
