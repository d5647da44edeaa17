"""Scribbles on the disk, written and looked up in the background."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
    """Hands quiet jobs to the runner; images are known by their content."""

    def __init__(self, runner: Runner, folder: Path) -> None:
        self._runner, self._store = runner, ScribbleStore(folder)

    def save(self, image: Image, scribbles: np.ndarray, class_names: tuple[str, ...]) -> None:
        """Write the scribbles; empty ones are forgotten. `Saved` comes when it is done."""
        pixels, store = _pixels(image), self._store

        def steps() -> Iterator[Event]:
            key = content_key(np.asarray(pixels))
            if scribbles.any():
                store.save(key, scribbles, class_names)
            else:
                store.discard(key)
            yield Saved()

        self._runner.submit(Job("autosave", 0, "Saving scribbles", steps, quiet=True))

    def look_up(self, image: Image, layer: Labels) -> None:
        """Look for scribbles of an image; `ScribblesFound` comes if there are any."""
        pixels, store = _pixels(image), self._store

        def steps() -> Iterator[Event]:
            found = store.load(content_key(np.asarray(pixels)))
            if found is not None:
                yield ScribblesFound(layer, *found)

        self._runner.submit(Job("restore", 0, "Looking for scribbles", steps, quiet=True))


def _pixels(image: Image) -> Any:
    return image.data[0] if image.multiscale else image.data
