"""The class list that a user annotates with, and scribbles that survive a crash."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from psygnal import Signal

from napari_deepcrf.atomic import atomic_write
from napari_deepcrf.data.npz import open_npz

Array = npt.NDArray[Any]
RGB = tuple[int, int, int]


@dataclass(frozen=True)
class AnnotationClass:
    """One class of the list: scribbles hold its position plus one (0 = unlabelled)."""

    name: str
    colour: RGB

    def __post_init__(self) -> None:
        if not self.name.strip():
            raise ValueError("class name: expected a text, got an empty one")


class ClassList:
    """An ordered, editable list of classes; ``changed`` fires after every edit."""

    changed = Signal()

    def __init__(self, classes: Iterable[AnnotationClass]) -> None:
        self._classes = list(classes)

    def __len__(self) -> int:
        return len(self._classes)

    def __getitem__(self, index: int) -> AnnotationClass:
        return self._classes[index]

    def __iter__(self) -> Iterator[AnnotationClass]:
        return iter(self._classes)

    @property
    def names(self) -> tuple[str, ...]:
        """Names in order; their positions are the class indices."""
        return tuple(c.name for c in self._classes)

    @property
    def colours(self) -> tuple[RGB, ...]:
        """RGB 0–255 in order."""
        return tuple(c.colour for c in self._classes)

    def replace_all(self, classes: Iterable[AnnotationClass]) -> None:
        """Take over another list, for example the classes of a newly chosen model."""
        new = list(classes)
        if new != self._classes:
            self._classes = new
            self.changed.emit()

    def add(self, name: str, colour: RGB) -> int:
        """Append a class and return its index; names are unique."""
        if name in self.names:
            raise ValueError(f"class name: expected a new one, got {name!r} twice")
        self._classes.append(AnnotationClass(name, colour))
        self.changed.emit()
        return len(self._classes) - 1

    def edit(self, index: int, **changes: Any) -> None:
        """Change the ``name`` or ``colour`` of one class."""
        old = self._classes[index]
        new = AnnotationClass(changes.get("name", old.name), changes.get("colour", old.colour))
        if new.name != old.name and new.name in self.names:
            raise ValueError(f"class name: expected a new one, got {new.name!r} twice")
        if new != old:
            self._classes[index] = new
            self.changed.emit()


def content_key(image: Any) -> str:
    """Name the pixels of an image or stack by their content, the same after a restart.

    Shape, type and a sample enter the hash: of a stack its first, middle and last planes, of each
    at most some 65,000 pixels. Arrays that load when they are indexed are asked for no more.
    """
    shape = tuple(int(n) for n in image.shape)
    digest = hashlib.sha256(f"{shape} {image.dtype}".encode())
    channels = 1 if len(shape) > 2 and shape[-1] <= 4 else 0
    stack, (height, width) = shape[: -2 - channels], shape[len(shape) - 2 - channels :][:2]
    step = max(1, int(np.ceil((height * width / 65536) ** 0.5)))
    ends = [sorted({0, n // 2, n - 1}) for n in stack]
    for index in itertools.product(*ends):
        plane = np.asarray(image[(*index, slice(None, None, step), slice(None, None, step))])
        digest.update(np.ascontiguousarray(plane).tobytes())
    return digest.hexdigest()[:32]


@dataclass(frozen=True, eq=False)
class SavedScribbles:
    """An image's annotation, 0 unlabelled, with the classes that its labels stand for."""

    scribbles: Array
    classes: tuple[AnnotationClass, ...]

    def equals(self, other: SavedScribbles) -> bool:
        """Whether there is nothing new in the other."""
        return self.classes == other.classes and np.array_equal(self.scribbles, other.scribbles)


class ScribbleStore:
    """Scribbles on disk, one file an image, replaced atomically."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def _path(self, key: str) -> Path:
        return self.directory / f"{key}.npz"

    def save(self, key: str, scribbles: Array, classes: Sequence[AnnotationClass]) -> None:
        """Write scribbles and class list; a crash in the middle leaves the last whole file."""
        names = json.dumps([c.name for c in classes])
        colours = np.array([c.colour for c in classes], np.uint8).reshape(-1, 3)
        self.directory.mkdir(parents=True, exist_ok=True)
        with atomic_write(self._path(key)) as file:
            np.savez_compressed(file, scribbles=scribbles, classes=names, colours=colours)

    def load(self, key: str, colour_of: Callable[[str, int], RGB]) -> SavedScribbles | None:
        """Return what was saved for these pixels, or None; a damaged file counts as none.

        ``colour_of`` a class's name and index is asked where a file holds none, as older ones do.
        """
        try:
            with open_npz(self._path(key)) as file:
                names = json.loads(str(file["classes"]))
                scribbles = file["scribbles"]
                colours = np.asarray(file["colours"]).tolist() if "colours" in file else None
        except (OSError, ValueError, RecursionError):
            return None
        if not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
            return None
        if colours is None:
            colours = [colour_of(name, index) for index, name in enumerate(names)]
        try:
            pairs = zip(names, colours, strict=True)
            classes = tuple(AnnotationClass(name, _rgb(colour)) for name, colour in pairs)
        except (TypeError, ValueError):
            return None
        return SavedScribbles(scribbles, classes)

    def discard(self, key: str) -> None:
        """Forget the scribbles of an image."""
        self._path(key).unlink(missing_ok=True)


def _rgb(values: Sequence[int]) -> RGB:
    red, green, blue = (int(value) for value in values)
    return red, green, blue
