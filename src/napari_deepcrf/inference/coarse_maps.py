"""The score maps of a network whose scores are an eighth of its image, window by window.

Windows overlap by what their scores depend on, so that they leave no seam. The network's first half
is run in pieces, each read and reduced in the thread that runs it.
"""

from __future__ import annotations

import itertools
import math
import threading
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from napari_deepcrf.inference.lazy_image import LazyImage
from napari_deepcrf.inference.network_halves import NetworkHalves
from napari_deepcrf.inference.resampling import STRIDE, reduce_window
from napari_deepcrf.inference.threads import run_pieces
from napari_deepcrf.inference.tiling import FloatArray, Span, Spans
from napari_deepcrf.models import UnaryNetwork

NETWORK_SHARE = 800_000_000
"""Bytes that the widest layer of a window may take."""
PIECE = 64
"""Cells a side of a piece on a CPU: the first half's maps of more are beyond its cache."""


@dataclass(frozen=True)
class _Scale:
    """The size of the image reduced to a scale, of its score map, and the map's windows."""

    size: tuple[int, int]
    coarse: tuple[int, int]
    windows: tuple[Spans, ...]

    @classmethod
    def of(cls, halves: NetworkHalves, shape: tuple[int, int], factor: float, side: int) -> _Scale:
        """An H × W image times ``factor``, in windows of ``side`` cells or so with margins."""
        height, width = (max(STRIDE, round(n * factor)) for n in shape)
        coarse = _coarse_size(halves.network, height), _coarse_size(halves.network, width)
        spans = [
            _parts(n, max(side, 4 * halves.second_margin), halves.second_margin) for n in coarse
        ]
        windows = tuple((rows, columns) for rows in spans[0] for columns in spans[1])
        return cls((height, width), coarse, windows)

    def around(self, window: Spans, margin: int) -> Spans:
        """A window with so many cells around it that the map has."""
        rows, columns = (
            (max(0, first - margin), min(count, last + margin))
            for (first, last), count in zip(window, self.coarse, strict=True)
        )
        return rows, columns

    def pixels(self, cells: Spans) -> Spans:
        """The part of the reduced image that cells are made from."""
        rows, columns = (
            (first * STRIDE, size if last == count else last * STRIDE)
            for (first, last), count, size in zip(cells, self.coarse, self.size, strict=True)
        )
        return rows, columns


def coarse_maps(
    network: UnaryNetwork,
    image: LazyImage,
    *,
    view: int,
    share: int,
    device: torch.device,
    on_progress: Callable[[int, int], None],
) -> tuple[FloatArray, ...]:
    """(L, h, w) scores for each of the network's scales; parameters as `score_maps` takes."""
    halves = NetworkHalves.of(network)
    side = halves.affordable(share)
    scales = [
        _Scale.of(halves, image.shape, scale * network.reduction(view), side)
        for scale in network.scales
    ]
    # A GPU takes large pieces, one at a time.
    on_cpu = device.type == "cpu"
    pieces = PIECE if on_cpu else side
    work = [
        (scale, window, _cut(scale.around(window, halves.second_margin), pieces))
        for scale in scales
        for window in scale.windows
    ]
    done, total = 0, sum(len(parts) for *_, parts in work)

    def told(_piece: Spans) -> None:
        nonlocal done
        done += 1
        on_progress(done, total)

    on_progress(done, total)
    first_half = _FirstHalf(halves, image, device, torch.get_num_threads() if on_cpu else 1, told)
    maps = {
        scale: np.zeros((network.backbone.num_classes, *scale.coarse), np.float32)
        for scale in scales
    }
    for scale, window, parts in work:
        outer = scale.around(window, halves.second_margin)
        scores = halves.scores(first_half(scale, outer, parts))
        maps[scale][:, *_index(window)] = scores[:, *_index(window, outer)]
    return tuple(maps[scale] for scale in scales)


@dataclass(frozen=True, eq=False)
class _FirstHalf:
    """Runs the network's first half in threads."""

    halves: NetworkHalves
    image: LazyImage
    device: torch.device
    workers: int
    on_done: Callable[[Spans], None]

    def __call__(self, scale: _Scale, window: Spans, pieces: list[Spans]) -> Tensor:
        """(C, h, w) features of a window, in cells, from those of its pieces."""
        channels = self.halves.channels
        size = [last - first for first, last in window]
        features = torch.empty((channels, *size), device=self.device)
        workers = min(self.workers, len(pieces))

        def one(piece: Spans, _stopped: threading.Event) -> None:
            outer = scale.around(piece, self.halves.first_margin)
            pixels = scale.pixels(outer)
            threads = self.workers // workers
            reduced = reduce_window(self.image, scale.size, *pixels, threads=threads)
            found = self.halves.features(reduced, self.device)
            features[:, *_index(piece, window)] = found[:, *_index(piece, outer)]

        run_pieces(one, pieces, workers=workers, on_done=self.on_done)
        return features


def _coarse_size(network: UnaryNetwork, size: int) -> int:
    """Scores along an axis of so many pixels: what the network makes of a thin strip."""
    with torch.inference_mode():
        strip = network.mean.new_zeros(1, 3, size, STRIDE)
        return int(network.coarse(strip).shape[2])


def _parts(count: int, side: int, margin: int) -> list[Span]:
    """Cuts ``count`` cells evenly so that each part and its margins are about ``side`` at most."""
    parts = 1 if count <= side else math.ceil(count / (side - 2 * margin))
    return list(itertools.pairwise(count * k // parts for k in range(parts + 1)))


def _cut(window: Spans, side: int) -> list[Spans]:
    """Pieces of a window, evenly cut, at most ``side`` cells a side."""
    spans = [
        [(first + a, first + b) for a, b in _parts(last - first, side, 0)] for first, last in window
    ]
    return [(rows, columns) for rows in spans[0] for columns in spans[1]]


def _index(cells: Spans, inside: Spans = ((0, 0), (0, 0))) -> tuple[slice, slice]:
    """Where cells are in an array of those of ``inside``."""
    rows, columns = (
        slice(a - first, b - first) for (a, b), (first, _) in zip(cells, inside, strict=True)
    )
    return rows, columns
