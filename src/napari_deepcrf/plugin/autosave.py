"""Scribbles on the disk, written and looked up in the background."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np

from napari_deepcrf.session import Job
from napari_deepcrf.session.annotations import ScribbleStore, content_key
from napari_deepcrf.session.events import Event

if TYPE_CHECKING:
    from napari.layers import Image, Labels

    from napari_deepcrf.plugin.workers import Runner


@dataclass(frozen=True)
class Saved:
    """The scribbles are on the disk."""


@dataclass(frozen=True, eq=False)
class ScribblesFound:
    """Autosaved scribbles of an image, to be put into its layer if that is still empty."""

    layer: Labels
    scribbles: np.ndarray
    class_names: tuple[str, ...]


class Autosave:
    """Hands quiet jobs to the runner; images are known by their content.

    Copying and comparing are done in the worker, for a stack's scribbles may be large. A stroke
    that falls into the middle of a copy starts a save of its own.
    """

    def __init__(self, runner: Runner, folder: Path) -> None:
        self._runner, self._store = runner, ScribbleStore(folder)
        self._last: WeakKeyDictionary[Labels, tuple[np.ndarray, tuple[str, ...]]]
        self._last = WeakKeyDictionary()

    def save(self, image: Image, layer: Labels, class_names: tuple[str, ...]) -> None:
        """Write what is painted if it is new; an emptied layer is forgotten on the disk.

        `Saved` comes when it is done.
        """
        pixels, painted, store = _pixels(image), layer.data, self._store

        def steps() -> Iterator[Event]:
            scribbles = np.array(painted)
            if layer not in self._last and not scribbles.any():
                return  # nothing was ever painted: leave what an earlier session saved
            before = self._last.get(layer)
            if before and before[1] == class_names and np.array_equal(before[0], scribbles):
                return
            key = content_key(pixels)
            if scribbles.any():
                store.save(key, scribbles, class_names)
            else:
                store.discard(key)
            self._last[layer] = scribbles, class_names
            yield Saved()

        self._runner.submit(Job("autosave", 0, "Saving scribbles", steps, quiet=True))

    def look_up(self, image: Image, layer: Labels) -> None:
        """Look for scribbles of an image; `ScribblesFound` comes if there are any."""
        pixels, store = _pixels(image), self._store

        def steps() -> Iterator[Event]:
            found = store.load(content_key(pixels))
            if found is not None:
                self._last[layer] = found
                yield ScribblesFound(layer, *found)

        self._runner.submit(Job("restore", 0, "Looking for scribbles", steps, quiet=True))


def _pixels(image: Image) -> Any:
    return image.data[0] if image.multiscale else image.data
