"""One image that the memory does not hold: in tiles, into OME-Zarr labels on the disk."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_deepcrf.session.batch import compile_kernels, with_settings
from napari_deepcrf.session.events import Event, Progress
from napari_deepcrf.session.interruptible_network import interruptible_network

if TYPE_CHECKING:
    from napari_deepcrf.inference.memory import TilePlan
    from napari_deepcrf.models import DeepCRF
    from napari_deepcrf.session.settings import CRFSettings
    from napari_deepcrf.session.state import SessionState

HELD_PIXELS = 2048**2
"""Resolutions of at most so many pixels are held in memory."""
LEAST_WAIT, WAIT_SHARE = 1.0, 10
"""Seconds between two looks at what is on the disk, and how many times longer than a look."""


@dataclass(frozen=True, eq=False)
class TilesOpened:
    """The labels on the disk, 0 in every tile that is not done yet; they fill in place."""

    levels: tuple[Any, ...]
    """(H, W) arrays, the finest first, each half of the one before; to be read only."""
    place: Path


@dataclass(frozen=True)
class TilesWritten:
    """More of the labels can be seen."""


def memory_problem(session: SessionState) -> str:
    """Why the session's image cannot be segmented as a whole, in one line; nothing if it can."""
    image, classes = session.image, len(session.class_names)
    if image is None or not classes:
        return ""
    from napari_deepcrf.inference import memory

    needed = memory.image_bytes(image.shape, classes) + session.memory_needed()
    free = memory.available() / memory.SHARE
    if needed <= free:
        return ""
    return (
        f"image: {image.name} as a whole takes about {needed / 1e9:.1f} GB of memory, "
        f"{free / 1e9:.1f} GB are free"
    )


def segment_in_tiles(
    open_image: Callable[[], Any],
    name: str,
    folder: Path,
    model: DeepCRF,
    device: str,
    settings: CRFSettings,
    view: int,
) -> Iterator[Event]:
    """Label an image of any size tile by tile; ``open_image`` returns what `LazyImage.of` takes.

    The labels' place in the folder follows from image, model, settings and view: a run that was
    cancelled or killed is gone on with, one that is complete is opened, and no other is touched.
    ``view`` is how many pixels the network sees side by side. Yields `TilesOpened` before any work,
    then `Progress` by tile, and `TilesWritten` now and then. Raises ValueError for an image or
    settings that tiles cannot be made of, OSError where nothing can be written.
    """
    yield Progress("Opening the image")
    from napari_deepcrf.inference import Predictor
    from napari_deepcrf.inference.large import segment_large
    from napari_deepcrf.inference.lazy_image import open_array
    from napari_deepcrf.inference.reported_steps import reported_steps

    yield from compile_kernels(model, device, settings)
    tuned = with_settings(model, settings)
    predictor = Predictor(tuned, device=device)
    image = open_image()
    view = min(view, max(open_array(image).shape[:2]))
    place = folder / f"{_file_name(name)}-{_identity(image, tuned, view)}.ome.zarr"
    plans: list[TilePlan] = []
    steps = reported_steps(
        lambda report: segment_large(
            image, predictor, place, view=view, on_progress=report, on_plan=plans.append
        )
    )
    levels: _Levels | None = None
    with interruptible_network(model.network), closing(steps):
        for done, total in steps:
            if levels is None:
                levels = _Levels(place)
                yield TilesOpened(levels.arrays, place)
            elif levels.look_again():
                yield TilesWritten()
            yield Progress(f"{name}: {plans[0]}", done, total)
    assert levels is not None
    levels.read()
    yield TilesWritten()
    yield Progress(f"Labels written to {place}", 1, 1)


class _Levels:
    """Labels on the disk as a viewer takes them, the coarse resolutions held in memory.

    A window that shows the whole image would read hundreds of small files at every refresh.
    """

    def __init__(self, place: Path) -> None:
        import zarr

        group = zarr.open_group(place, mode="r")
        stored: list[Any] = [group[name] for name in sorted(group.array_keys(), key=int)]
        self._held = [(level, np.asarray(level)) for level in stored if _is_held(level)]
        finer = [level for level in stored if not _is_held(level)]
        self.arrays = (*finer, *(values for _, values in self._held))
        self._next = 0.0

    def look_again(self) -> bool:
        """Read what is held, if the last time is long enough ago; whether it was read."""
        began = time.monotonic()
        if began < self._next:
            return False
        self.read()
        now = time.monotonic()
        self._next = now + max(LEAST_WAIT, WAIT_SHARE * (now - began))
        return True

    def read(self) -> None:
        """Renew what is held, in place."""
        for level, values in self._held:
            values[...] = level[...]


def _is_held(level: Any) -> bool:
    return int(np.prod(level.shape)) <= HELD_PIXELS


def _file_name(name: str) -> str:
    return re.sub(r"[^\w.-]+", "_", name).strip("._") or "image"


def _identity(image: Any, model: DeepCRF, view: int) -> str:
    """Eight letters that tell runs apart: of arrays in memory all pixels count, else a sample."""
    from napari_deepcrf.inference.lazy_image import GreyLevels, LazyImage, open_array
    from napari_deepcrf.models.model_digest import model_digest

    if isinstance(image, np.ndarray):
        total = hashlib.sha256(f"{image.shape} {image.dtype}".encode())
        for row in image:
            total.update(np.ascontiguousarray(row).data)
        content = total.hexdigest()
    else:
        content = LazyImage(open_array(image), GreyLevels(0.0, 1.0)).fingerprint()
    return hashlib.sha256(f"{content} {model_digest(model)} {view}".encode()).hexdigest()[:8]
