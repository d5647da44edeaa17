"""A folder of one's own: ``images/NAME.*`` with annotations ``labels/NAME.png``."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from napari_deepcrf.data.arrays import MAX_CLASSES, from_annotation
from napari_deepcrf.data.image_files import read_image
from napari_deepcrf.data.images import check_image
from napari_deepcrf.data.samples import DatasetError, Sample
from napari_deepcrf.data.voc import read_labels

IMAGES, LABELS, CLASSES_FILE = "images", "labels", "classes.txt"


class FolderDataset:
    """Pairs of equal stem in ``root/images`` and ``root/labels``.

    Labels are 8-bit PNGs, grey or palette, as a napari Labels layer has them: 0 is unlabelled and
    leaves the loss, k + 1 stands for class k. ``root/classes.txt`` names the classes, one a line;
    without it they are "class 1" … up to the largest annotation. Raises `DatasetError` that lists
    every image without labels and every labels file without an image.
    """

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root)
        missing = [name for name in (IMAGES, LABELS) if not (self.root / name).is_dir()]
        if missing:
            raise DatasetError(str(self.root), [f"no folder {name!r}" for name in missing])
        images = _by_stem(self.root / IMAGES)
        labels = _by_stem(self.root / LABELS)
        problems = [
            f"{images[stem].name}: no labels" for stem in sorted(images.keys() - labels.keys())
        ]
        problems += [
            f"{labels[stem].name}: no image" for stem in sorted(labels.keys() - images.keys())
        ]
        if not problems and not images:
            problems = [f"{IMAGES}: no image"]
        if problems:
            raise DatasetError(str(self.root), problems)
        self.names = tuple(sorted(images))
        self._images, self._labels = images, labels
        self.class_names = self._read_classes()

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file whose content the samples come from."""
        return (*self._images.values(), *self._labels.values())

    def _read_classes(self) -> tuple[str, ...]:
        path = self.root / CLASSES_FILE
        if path.is_file():
            names = tuple(line.strip() for line in path.read_text().splitlines() if line.strip())
            if not 2 <= len(names) <= MAX_CLASSES:
                raise DatasetError(
                    str(path), [f"expected 2 to {MAX_CLASSES} class names, got {len(names)}"]
                )
            return names
        highest = max(int(read_labels(path).max()) for path in self._labels.values())
        return tuple(f"class {n + 1}" for n in range(max(2, highest)))

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Sample:
        name = self.names[index]
        try:
            image = check_image(read_image(self._images[name])).round().astype(np.uint8)
            return Sample(name, image, from_annotation(read_labels(self._labels[name])))
        except (OSError, TypeError) as error:
            raise ValueError(f"{name}: unreadable image or labels ({error})") from error


def _by_stem(folder: Path) -> dict[str, Path]:
    return {
        path.stem: path
        for path in folder.iterdir()
        if path.is_file() and not path.name.startswith(".")
    }
