"""The network's scores of a large image, kept as the small maps that the network gives.

The network sees the whole image on one scale, whatever the tiles of the CRF: reduced as it would
reduce an image of ``view`` pixels, which is how many pixels of this one it is to see side by side.
With ``view`` equal to the longer side these are the very scores of `UnaryNetwork`. The reduced
image is scored in windows that overlap by the network's reach, so that they leave no seam; the
maps, an eighth as long and wide as the reduced image, stay in memory.

A `FineUnaryNetwork` looks at an image as a whole, whatever its size. Where it cannot have that, it
gets windows of ``view`` pixels, each as if it were an image, whose scores fade into each other.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from dask.base import compute
from dask.delayed import delayed
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from torch import nn

from napari_deepcrf.device import network_precision
from napari_deepcrf.inference.lazy_image import LazyImage
from napari_deepcrf.inference.tiling import Span
from napari_deepcrf.models import UnaryNetwork
from napari_deepcrf.models.fine_head import FineUnaryNetwork

STRIDE = 8
"""Pixels of the reduced image from one score to the next."""
FINE_SIDE = 2048
"""Most pixels a side that a fine network is given; larger views are reduced to so many."""
FADE = 4
"""One in so many pixels of a fine network's window is shared with the next."""
BAND = 1 << 21
"""Pixels of the image that a thread reduces at a time."""

FloatArray = NDArray[np.float32]


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
                _interpolation(places, size, coarse)
                for places, size, coarse in zip(
                    (rows, columns), self.shape, scores.shape[1:], strict=True
                )
            )
            part = scores[:, y[0] : y[1], x[0] : x[1]]
            total += down @ (part @ along.T)
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
        return _fine_maps(network, image, view, device, on_progress)
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


def _fine_maps(
    network: FineUnaryNetwork,
    image: LazyImage,
    view: int,
    device: torch.device,
    on_progress: Callable[[int, int], None],
) -> ScoreMaps:
    """Scores of every pixel where the network sees all, else of every cell of 8 × 8 pixels."""
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
        reduced = reduce_window(image, (height, width), rows, columns)
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
    return ScoreMaps(image.shape, (total,))


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


def reduce_window(image: LazyImage, size: tuple[int, int], rows: Span, columns: Span) -> FloatArray:
    """A window (h, w, 3) of the image resized to ``size``, as PyTorch's antialiased bilinear.

    The image is read in bands, so that memory does not grow with the reduction.
    """
    (y, down), (x, along) = (
        _reduction(n, m, span)
        for n, m, span in zip(image.shape, size, (rows, columns), strict=True)
    )
    out = np.zeros((rows[1] - rows[0], (columns[1] - columns[0]) * 3), np.float32)
    across, by_row = along.tocsc(), down.tocsc()
    height = max(1, BAND // (x[1] - x[0]))
    threads = torch.get_num_threads()

    def narrowed(first: int) -> FloatArray:
        """The band from line ``first`` on, reduced along its lines: (lines, columns * 3)."""
        band = image.read(slice(first, min(first + height, y[1])), slice(*x))
        narrow = across @ band.transpose(1, 0, 2).reshape(x[1] - x[0], -1)
        by_line: FloatArray = narrow.reshape(-1, len(band), 3).transpose(1, 0, 2)
        return by_line.reshape(len(band), -1)

    lines = range(y[0], y[1], height)
    for group in (lines[k : k + threads] for k in range(0, len(lines), threads)):
        tasks = [delayed(narrowed, pure=False)(first) for first in group]
        bands = compute(*tasks, scheduler="threads", num_workers=threads)
        for first, narrow in zip(group, bands, strict=True):
            out += by_row[:, first - y[0] : first - y[0] + len(narrow)] @ narrow
    return out.reshape(rows[1] - rows[0], -1, 3)


def _reduction(size: int, reduced: int, span: Span) -> tuple[Span, csr_matrix]:
    """The pixels that reduced pixels ``span`` come from, and their weights (reduced, pixels).

    A triangle as wide as the reduction, normalised, about the centre of every reduced pixel.
    """
    scale = size / reduced
    support = max(scale, 1.0)
    centre = scale * (np.arange(*span) + 0.5)
    first = np.maximum((centre - support + 0.5).astype(np.int64), 0)
    last = np.minimum((centre + support + 0.5).astype(np.int64), size)
    width = int((last - first).max())
    place = first[:, None] + np.arange(width)
    weight = np.maximum(0, 1 - np.abs(place + 0.5 - centre[:, None]) / support)
    weight *= place < last[:, None]
    weight /= weight.sum(1, keepdims=True)
    begin, end = int(first.min()), int(last.max())
    entries = place < end
    row = np.broadcast_to(np.arange(len(centre))[:, None], place.shape)[entries]
    values = weight[entries].astype(np.float32), (row, place[entries] - begin)
    return (begin, end), csr_matrix(values, shape=(len(centre), end - begin))


def _interpolation(places: NDArray[np.int64], size: int, coarse: int) -> tuple[Span, FloatArray]:
    """The scores that places on an axis lie between, and bilinear weights (places, scores)."""
    source = np.maximum((places + 0.5) * (coarse / size) - 0.5, 0)
    lower = np.minimum(source.astype(np.int64), coarse - 1)
    upper = np.minimum(lower + 1, coarse - 1)
    share = (source - lower).astype(np.float32)
    begin, end = int(lower[0]), int(upper[-1]) + 1
    weights = np.zeros((len(places), end - begin), np.float32)
    row = np.arange(len(places))
    weights[row, lower - begin] = 1 - share
    weights[row, upper - begin] += share
    return (begin, end), weights
