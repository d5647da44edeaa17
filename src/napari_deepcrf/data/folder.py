"""A folder of one's own: ``images/NAME.*`` with annotations ``labels/NAME.*``."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_deepcrf.data.arrays import MAX_CLASSES, from_annotation
from napari_deepcrf.data.file_dataset import FileDataset, read_text
from napari_deepcrf.data.image_files import read_image
from napari_deepcrf.data.images import as_rgb
from napari_deepcrf.data.label_files import read_labels
from napari_deepcrf.data.problems import check_files
from napari_deepcrf.data.samples import DatasetError

IMAGES, LABELS, CLASSES_FILE = "images", "labels", "classes.txt"
TRAIN, VALIDATION = "train", "val"
"""The splits that training looks for."""


class FolderDataset(FileDataset):
    """Pairs of equal stem in ``root/images`` and ``root/labels``.

    Labels are 8-bit PNGs, grey or palette, or TIFFs of integers, as a napari Labels layer is
    saved: 0 is unlabelled and leaves the loss, k + 1 stands for class k. ``root/classes.txt``
    names the classes, one a line; without it they are "class 1" … up to the largest annotation.
    ``split`` names a list of stems, ``root/SPLIT.txt``; without one all pairs are taken. Every
    class must be annotated somewhere, but for splits other than train. Raises `DatasetError`
    where files are missing, which lists everything else that is wrong, too, or where two have the
    same stem.
    """

    def __init__(self, root: Path | str, split: str | None = None) -> None:
        self.root = Path(root)
        missing = [name for name in (IMAGES, LABELS) if not (self.root / name).is_dir()]
        if missing:
            raise DatasetError(str(self.root), [f"no folder {name!r}" for name in missing])
        problems: list[str] = []
        images, labels = (_by_stem(self.root / name, problems) for name in (IMAGES, LABELS))
        if problems:
            raise DatasetError(str(self.root), problems)
        self.names = self._read_split(split) or tuple(sorted(images.keys() | labels.keys()))
        if not self.names:
            raise DatasetError(str(self.root), [f"{IMAGES}: no image"])
        self.pairs = tuple(
            (
                images.get(name, self.root / IMAGES / f"{name}.*"),
                labels.get(name, self.root / LABELS / f"{name}.png"),
            )
            for name in self.names
        )
        self.class_names = self._read_classes() or _number_classes(labels.values())
        self.required_classes = self.class_names if split in (None, TRAIN) else ()
        check_files(self, self.pairs, str(self.root))

    def _read_split(self, split: str | None) -> tuple[str, ...]:
        if split is None:
            return ()
        path = self.root / f"{split}.txt"
        names = _lines(path) if path.is_file() else ()
        if not names:
            raise DatasetError(str(self.root), [f"{path.name}: expected names, one a line"])
        return names

    def _read_classes(self) -> tuple[str, ...]:
        path = self.root / CLASSES_FILE
        if not path.is_file():
            return ()
        names = _lines(path)
        if not 2 <= len(names) <= MAX_CLASSES:
            raise DatasetError(
                str(path), [f"expected 2 to {MAX_CLASSES} class names, got {len(names)}"]
            )
        return names

    def _read_image(self, path: Path) -> NDArray[np.uint8]:
        return as_rgb(read_image(path)).round().astype(np.uint8)

    def _read_labels(self, path: Path) -> NDArray[np.uint8]:
        annotation = _read_annotation(path)
        low, high = int(annotation.min(initial=0)), int(annotation.max(initial=0))
        if low < 0 or high > len(self.class_names):
            raise ValueError(
                f"label {low if low < 0 else high} is out of range, expected 0 (unlabelled) to "
                f"{len(self.class_names)}"
            )
        return from_annotation(annotation)


def _number_classes(labels: Iterable[Path]) -> tuple[str, ...]:
    """Names up to the largest annotation, whichever the split."""
    highest = 2
    for path in labels:
        # What cannot be read is named with all that is wrong when the samples are read.
        with suppress(Exception):
            highest = max(highest, int(_read_annotation(path).max(initial=0)))
    return tuple(f"class {n + 1}" for n in range(min(highest, MAX_CLASSES)))


def _lines(path: Path) -> tuple[str, ...]:
    return tuple(line.strip() for line in read_text(path).splitlines() if line.strip())


def _read_annotation(path: Path) -> NDArray[np.integer[Any]]:
    """(H, W) numbers as they are in the file: those of a palette PNG are its indices."""
    if path.suffix.lower() == ".png":
        return read_labels(path)
    labels = read_image(path)
    if labels.ndim != 2 or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            f"expected (H, W) whole numbers, got {labels.dtype} of shape {labels.shape}"
        )
    return labels


def _by_stem(folder: Path, problems: list[str]) -> dict[str, Path]:
    """The files of a folder by stem; two of one stem are added to ``problems``."""
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if not path.is_file() or path.name.startswith("."):
            continue
        if path.stem in found:
            both = f"{found[path.stem].name} and {path.name}"
            problems.append(f"{folder.name}: expected one file {path.stem}.*, got {both}")
        found[path.stem] = path
    return found
