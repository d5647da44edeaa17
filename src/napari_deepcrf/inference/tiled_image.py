"""One image of any size, a model and a CRF: overlapping tiles, run by Dask.

First the network scores the image as a whole on one scale (`score_maps`), then the CRF of every
tile is run with what it needs of its surroundings (`tiling`, `tile_crf`), so that tiles leave no
seams. See docs/large-images.md for what was measured.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from napari_deepcrf.crf import DenseCRF
from napari_deepcrf.device import release_memory, with_fallback
from napari_deepcrf.inference.coarse_maps import NETWORK_SHARE
from napari_deepcrf.inference.lazy_image import LazyImage
from napari_deepcrf.inference.memory import plan_tiles
from napari_deepcrf.inference.predictor import Predictor, ProgressCallback
from napari_deepcrf.inference.resampling import STRIDE
from napari_deepcrf.inference.score_maps import ScoreMaps, map_bytes, score_maps
from napari_deepcrf.inference.threads import run_pieces
from napari_deepcrf.inference.tile_crf import TileCRF
from napari_deepcrf.inference.tiling import Labels, Tile, cut


class TiledImage:
    """One image, a model and a CRF, to be segmented tile by tile.

    Parameters
    ----------
    image
        What `LazyImage.of` takes: arrays, memory maps, pyramids, zarr and OME-Zarr.
    predictor
        The model on its device.
    view
        How many pixels of the image the network is to see side by side. None: all of it, as for
        an image that fits, which makes small objects of a large image vanish.
    crf
        In place of the model's own.
    memory
        Bytes for the whole process; by default half of the free memory is used.
    tile, workers
        Pixels a side and tiles at once, where the plan should not choose them.

    Raises
    ------
    ValueError
        For an image, a CRF or a limit that cannot be worked with.
    """

    def __init__(
        self,
        image: Any,
        predictor: Predictor,
        *,
        view: int | None = None,
        crf: DenseCRF | None = None,
        memory: int | None = None,
        tile: int | None = None,
        workers: int | None = None,
    ) -> None:
        self.predictor = predictor
        model = predictor.model
        self.crf = (crf or model.crf).to(predictor.device).eval()
        self.image = LazyImage.of(image)
        self.view = max(self.image.shape) if view is None else view
        if self.view < STRIDE:
            raise ValueError(f"view: expected at least {STRIDE} pixels, got {view}")
        if tile is not None and tile < 1:
            raise ValueError(f"tile: expected at least one pixel, got {tile}")
        self.surroundings = TileCRF(self.crf, self.image.shape, (0.0,) * 3).surroundings
        self.plan = plan_tiles(
            self.image.shape,
            len(model.class_names),
            self.surroundings,
            kernels=len(self.crf.kernels),
            limit=memory,
            tile=tile,
            workers=workers or (None if predictor.device.type == "cpu" else 1),
            maps=map_bytes(model.network, self.image.shape, self.view),
        )
        self.tiles = cut(self.image.shape, self.plan.tile)

    def scores(self, on_progress: ProgressCallback | None = None) -> ScoreMaps:
        """What the network says about the whole image; ``on_progress`` counts its windows."""
        network = self.predictor.model.network

        def work(device: torch.device) -> ScoreMaps:
            with self.predictor.model_on(device):
                return score_maps(
                    network,
                    self.image,
                    view=self.view,
                    share=min(NETWORK_SHARE, self.plan.needed),
                    device=device,
                    on_progress=on_progress or (lambda done, total: None),
                )

        return with_fallback(self.predictor.device, work)

    def run(
        self,
        scores: ScoreMaps,
        write: Callable[[Tile, Labels], None],
        *,
        tiles: Sequence[Tile] | None = None,
        on_tile: Callable[[Tile], None] | None = None,
    ) -> None:
        """Label tiles, by default all, ``plan.workers`` at once, with Dask's threads.

        ``write`` receives every tile's (H, W) labels, in a worker's thread; ``on_tile`` is called
        after that, in the caller's. What either raises stops the run and reaches the caller;
        tiles that are being worked on then are not written.
        """
        tile_crf = TileCRF(self.crf, self.image.shape, self._mean_colour())

        def one(tile: Tile, stopped: threading.Event) -> None:
            labels = self._labels(tile_crf, scores, tile)
            if not stopped.is_set():
                write(tile, labels)

        try:
            run_pieces(
                one,
                self.tiles if tiles is None else tiles,
                workers=self.plan.workers,
                on_done=on_tile or (lambda tile: None),
            )
        finally:
            release_memory(self.predictor.device)

    def labels(self, on_progress: ProgressCallback | None = None) -> Labels:
        """(H, W) labels in memory; ``on_progress`` counts the network's part as one tile."""
        report = on_progress or (lambda done, total: None)
        total = len(self.tiles) + 1
        report(0, total)
        scores = self.scores()
        report(1, total)
        out: Labels = np.zeros(self.image.shape, np.uint8)
        done = 1

        def write(tile: Tile, labels: Labels) -> None:
            out[tile.region] = labels

        def told(tile: Tile) -> None:
            nonlocal done
            done += 1
            report(done, total)

        self.run(scores, write, on_tile=told)
        return out

    def _labels(self, tile_crf: TileCRF, scores: ScoreMaps, tile: Tile) -> Labels:
        points = self.surroundings.points(tile, self.image.shape)
        rows, columns = points.window
        stored = self.image.raw(slice(*rows), slice(*columns))
        colours = points.gather(
            lambda y, x: self._colours(stored[_index(y - rows[0])][:, _index(x - columns[0])])
        )
        unary = points.gather(scores.at)

        def work(device: torch.device) -> Labels:
            own = tile_crf if device == self.predictor.device else _on(tile_crf, device)
            tensors = (torch.from_numpy(values).to(device) for values in (unary, colours))
            return own.labels(points, *tensors)

        return with_fallback(self.predictor.device, work)

    def _colours(self, stored: NDArray[Any]) -> NDArray[np.float32]:
        """(3, h, w) grey levels of stored pixels (h, w, C)."""
        planes = np.ascontiguousarray(stored.transpose(2, 0, 1))
        return self.image.levels.rgb(planes.transpose(1, 2, 0)).transpose(2, 0, 1)

    def _mean_colour(self) -> tuple[float, ...]:
        """Of the whole image, where the CRF's lattices are taken about it."""
        if self.crf.quality == "fast":
            return (0.0, 0.0, 0.0)
        return self.image.mean()


def _index(places: NDArray[np.int64]) -> slice | NDArray[np.int64]:
    """Ascending places along an axis, as a slice where none is left out."""
    whole = places[-1] - places[0] == len(places) - 1
    return slice(int(places[0]), int(places[-1]) + 1) if whole else places


def _on(tile_crf: TileCRF, device: torch.device) -> TileCRF:
    """A copy of a tile's CRF on another device."""
    return replace(tile_crf, crf=deepcopy(tile_crf.crf).to(device))
