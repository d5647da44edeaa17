"""PASCAL VOC 2012 in the devkit's own layout, with SBD's extra annotations as raw index PNG."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from napari_deepcrf.data.samples import DatasetError, Sample

VOC_CLASSES = (
    "background",
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)

# Folders with a split's labels, the preferred one first.
_OFFICIAL, _AUGMENTED = "SegmentationClass", "SegmentationClassAug"


def voc_palette() -> NDArray[np.uint8]:
    """The devkit's (256, 3) RGB colours: the bits of an index spread over the channels."""
    index = np.arange(256)
    palette = np.zeros((256, 3), dtype=np.uint8)
    for bit in range(8):
        for channel in range(3):
            palette[:, channel] |= (((index >> (3 * bit + channel)) & 1) << (7 - bit)).astype(
                np.uint8
            )
    return palette


def read_labels(path: Path | str) -> NDArray[np.uint8]:
    """(H, W) class indices of a palette or greyscale PNG; raises ValueError for other kinds."""
    with Image.open(path) as image:
        if image.mode not in ("P", "L"):
            raise ValueError(
                f"{path}: expected a palette or 8-bit grey PNG of class indices, got {image.mode}"
            )
        return np.asarray(image, dtype=np.uint8)


def read_rgb(path: Path | str) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 RGB of an image file."""
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"), dtype=np.uint8)


class VOCDataset:
    """One split of ``root/VOC2012`` or ``root`` itself (the folder that holds JPEGImages).

    ``split`` names a list in ImageSets/Segmentation (train, trainval, train_aug, val). Labels
    are the official ones where they exist and SBD's elsewhere. Raises `DatasetError` that lists
    every missing file at once.
    """

    class_names: tuple[str, ...] = VOC_CLASSES

    def __init__(self, root: Path | str, split: str) -> None:
        self.root = _find_devkit(Path(root))
        self.split = split
        list_file = self.root / "ImageSets" / "Segmentation" / f"{split}.txt"
        if not list_file.is_file():
            known = sorted(path.stem for path in list_file.parent.glob("*.txt"))
            raise DatasetError(
                str(self.root), [f"no split {split!r}, found {', '.join(known) or 'none'}"]
            )
        self.names = tuple(list_file.read_text().split())
        self._labels: list[Path] = []
        problems = [] if self.names else [f"{list_file.name} is empty"]
        for name in self.names:
            labels = self._find_labels(name)
            if not self._image_path(name).is_file():
                problems.append(f"missing image JPEGImages/{name}.jpg")
            if labels is None:
                problems.append(f"missing labels {_OFFICIAL}/{name}.png")
            else:
                self._labels.append(labels)
        if problems:
            raise DatasetError(str(self.root), problems)

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file whose content the samples come from."""
        return (*map(self._image_path, self.names), *self._labels)

    def _image_path(self, name: str) -> Path:
        return self.root / "JPEGImages" / f"{name}.jpg"

    def _find_labels(self, name: str) -> Path | None:
        for folder in (_OFFICIAL, _AUGMENTED):
            path = self.root / folder / f"{name}.png"
            if path.is_file():
                return path
        return None

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Sample:
        name, labels = self.names[index], self._labels[index]
        try:
            return Sample(name, read_rgb(self._image_path(name)), read_labels(labels))
        except (UnidentifiedImageError, OSError) as error:
            raise ValueError(f"{name}: unreadable image or labels ({error})") from error


def _find_devkit(root: Path) -> Path:
    candidates = (root, root / "VOC2012", root / "VOCdevkit" / "VOC2012")
    for candidate in candidates:
        if (candidate / "ImageSets" / "Segmentation").is_dir():
            return candidate
    raise DatasetError(
        str(root), ["expected ImageSets/Segmentation here, in VOC2012 or in VOCdevkit/VOC2012"]
    )
