"""The score map of a network with a fine top layer.

A `FineUnaryNetwork` looks at an image as a whole, whatever its size. Where it cannot have that, it
gets windows of ``view`` pixels, each as if it were an image, whose scores fade into each other.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch

from napari_deepcrf.device import network_precision
from napari_deepcrf.inference.lazy_image import LazyImage
from napari_deepcrf.inference.resampling import STRIDE, reduce_window
from napari_deepcrf.inference.tiling import FloatArray, Span
from napari_deepcrf.models.fine_head import FineUnaryNetwork

FINE_SIDE = 2048
"""Most pixels a side that a fine network is given; larger views are reduced to so many."""
FADE = 4
"""One in so many pixels of a fine network's window is shared with the next."""


def fine_map(
    network: FineUnaryNetwork,
    image: LazyImage,
    *,
    view: int,
    device: torch.device,
    on_progress: Callable[[int, int], None],
) -> FloatArray:
    """(L, h, w) scores: of every pixel where the network sees all, else of cells of 8 × 8."""
    side = min(view, FINE_SIDE)
    size = tuple(max(STRIDE, round(n * side / view)) for n in image.shape)
    height, width = size
    spans = [_windows(n, side) for n in size]
    windows = [(rows, columns) for rows in spans[0] for columns in spans[1]]
    cell = 1 if len(windows) == 1 else STRIDE
    total = np.zeros(
        (network.backbone.num_classes, -(-height // cell), -(-width // cell)), np.float32
    )
    weight = np.zeros(total.shape[1:], np.float32)
    for done, (rows, columns) in enumerate(windows):
        on_progress(done, len(windows))
        threads = torch.get_num_threads()
        reduced = reduce_window(image, (height, width), rows, columns, threads=threads)
        tensor = torch.from_numpy(reduced).permute(2, 0, 1)[None].to(device)
        with torch.inference_mode(), network_precision(device):
            found = network(tensor) if cell == 1 else network.coarse(tensor)
        scores = found[0].float().cpu().numpy()
        ramp = np.minimum.outer(*(_ramp(n, side // (FADE * cell)) for n in scores.shape[1:]))
        place = tuple(
            slice(span[0] // cell, span[0] // cell + n)
            for span, n in zip((rows, columns), scores.shape[1:], strict=True)
        )
        total[:, *place] += ramp * scores
        weight[place] += ramp
    on_progress(len(windows), len(windows))
    total /= weight
    return total


def _windows(size: int, side: int) -> list[Span]:
    """Spans of ``side`` that cover an axis and overlap, begun at whole cells."""
    step = side - side // FADE
    count = 1 if size <= side else math.ceil((size - side) / step) + 1
    last = max(0, size - side)
    starts = [math.ceil(last * k / max(1, count - 1) / STRIDE) * STRIDE for k in range(count)]
    return [(first, min(first + side, size)) for first in starts]


def _ramp(size: int, fade: int) -> FloatArray:
    """Weights along a window of so many scores, falling towards both ends."""
    from_end = np.minimum(np.arange(size), np.arange(size)[::-1]) + 1
    weights: FloatArray = np.minimum(1, from_end / (fade + 1)).astype(np.float32)
    return weights
