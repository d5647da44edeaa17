"""Scribbles on the disk, written and looked up in the background."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np

from napari_deepcrf.plugin.images import finest
from napari_deepcrf.plugin.palette import class_colour
from napari_deepcrf.session import Job
from napari_deepcrf.session.annotations import (
    AnnotationClass,
    SavedScribbles,
    ScribbleStore,
    content_key,
)
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
    classes: tuple[AnnotationClass, ...]


class Autosave:
    """Saves the layers that it adopted, one an image; images are known by their content.

    Other labels layers are the user's own to save: under an image's key they would replace the
    strokes that are stored for it. Copying and comparing are done in the worker, for a stack's
    scribbles may be large. A stroke that falls into the middle of a copy is marked anew.
    """

    def __init__(self, runner: Runner, folder: Path) -> None:
        self._runner, self._store = runner, ScribbleStore(folder)
        self._images: WeakKeyDictionary[Labels, Image] = WeakKeyDictionary()
        self._last: WeakKeyDictionary[Labels, SavedScribbles] = WeakKeyDictionary()
        self._unsaved: dict[Labels, Image] = {}
        self._writing = threading.Lock()

    def adopt(self, image: Image, layer: Labels) -> None:
        """Save this layer of an image from now on; `ScribblesFound` comes if some are stored."""
        self._images[layer] = image
        pixels, store = finest(image), self._store

        def steps() -> Iterator[Event]:
            found = store.load(content_key(pixels), class_colour)
            if found is not None:
                self._last[layer] = found
                yield ScribblesFound(layer, found.scribbles.copy(), found.classes)

        self._runner.submit(Job("restore", 0, "Looking for scribbles", steps, quiet=True))

    def mark(self, layer: Labels) -> bool:
        """Note that a layer may hold new strokes; False if it is not ours to save."""
        image = self._images.get(layer)
        if image is not None:
            self._unsaved[layer] = image
        return image is not None

    def save(self, classes: Sequence[AnnotationClass]) -> None:
        """Write what was marked in the background; `Saved` comes when it is done."""
        snapshot = tuple(classes)

        def steps() -> Iterator[Event]:
            if self.flush(snapshot):
                yield Saved()

        self._runner.submit(Job("autosave", 0, "Saving scribbles", steps, quiet=True))

    def flush(self, classes: Sequence[AnnotationClass]) -> bool:
        """Write what was marked, here and now; whether there was anything new.

        Raises
        ------
        OSError
            If it cannot be written; it stays marked then.
        """
        written = False
        with self._writing:  # a save in the worker may hold an older copy
            while self._unsaved:
                layer, image = self._unsaved.popitem()
                try:
                    written |= self._write(layer, finest(image), tuple(classes))
                except BaseException:
                    self._unsaved.setdefault(layer, image)
                    raise
        return written

    def _write(self, layer: Labels, pixels: Any, classes: tuple[AnnotationClass, ...]) -> bool:
        """Save a layer if it is new; an emptied one is forgotten on the disk."""
        now, before = SavedScribbles(np.array(layer.data), classes), self._last.get(layer)
        painted = bool(now.scribbles.any())
        if before is None and not painted:
            return False  # nothing was ever painted: leave what an earlier session saved
        if before is not None and before.equals(now):
            return False
        key = content_key(pixels)
        if painted:
            self._store.save(key, now.scribbles, classes)
        else:
            self._store.discard(key)
        self._last[layer] = now
        return True
