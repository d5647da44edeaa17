"""PASCAL VOC 2012 in the devkit's own layout, with SBD's extra annotations as PNG or .mat."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from napari_deepcrf.data.file_dataset import FileDataset, read_text
from napari_deepcrf.data.image_files import read_rgb
from napari_deepcrf.data.label_files import read_labels
from napari_deepcrf.data.matlab import read_mat_labels
from napari_deepcrf.data.problems import check_files
from napari_deepcrf.data.samples import DatasetError

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

_OFFICIAL, _AUGMENTED = "SegmentationClass", "SegmentationClassAug"
"""Folders with a split's labels, the preferred one first."""

_SBD_FOLDERS = ("", "dataset", "benchmark_RELEASE/dataset")
"""Where SBD's ``img`` and ``cls`` may lie under a folder that someone names."""


class VOCDataset(FileDataset):
    """One split of ``root/VOC2012`` or ``root`` itself (the folder that holds JPEGImages).

    ``split`` names a list in ImageSets/Segmentation (train, trainval, train_aug, val). Labels
    are the official ones where they exist, else those of SegmentationClassAug, else SBD's own
    .mat files, whose folder (benchmark_RELEASE as it is distributed) may lie beside the devkit:
    then train_aug needs no list, being train and all of SBD without val. Raises `DatasetError`
    where files are missing, which lists everything else that is wrong, too.
    """

    class_names: tuple[str, ...] = VOC_CLASSES

    def __init__(self, root: Path | str, split: str) -> None:
        self.root = _find_devkit(Path(root))
        self.split = split
        places = (Path(root), *list(self.root.parents)[:2], self.root)
        self._sbd = next((found for place in places if (found := find_sbd(place))), None)
        self.names = self._read_list(split)
        self.pairs = tuple(
            (self.root / "JPEGImages" / f"{name}.jpg", self._find_labels(name))
            for name in self.names
        )
        check_files(self, self.pairs, str(self.root))

    def _read_list(self, split: str) -> tuple[str, ...]:
        folder = self.root / "ImageSets" / "Segmentation"
        file = folder / f"{split}.txt"
        if file.is_file():
            names = tuple(read_text(file).split())
            if not names:
                raise DatasetError(str(self.root), [f"{file.name} is empty"])
            return names
        if split == "train_aug" and self._sbd is not None:
            train, val = self._read_list("train"), self._read_list("val")
            lists = (self._sbd / f"{part}.txt" for part in ("train", "val"))
            extra = {name for path in lists for name in read_text(path).split()}
            return (*train, *sorted(extra.difference(train, val)))
        known = ", ".join(sorted(path.stem for path in folder.glob("*.txt"))) or "none"
        hint = ", and no benchmark_RELEASE of SBD beside it" if split == "train_aug" else ""
        raise DatasetError(str(self.root), [f"no split {split!r}, found {known}{hint}"])

    def _find_labels(self, name: str) -> Path:
        places = [self.root / _OFFICIAL / f"{name}.png", self.root / _AUGMENTED / f"{name}.png"]
        if self._sbd is not None:
            places.append(self._sbd / "cls" / f"{name}.mat")
        return next((path for path in places if path.is_file()), places[0])

    def _read_image(self, path: Path) -> NDArray[np.uint8]:
        return read_rgb(path)

    def _read_labels(self, path: Path) -> NDArray[np.uint8]:
        return read_mat_labels(path) if path.suffix == ".mat" else read_labels(path)


def find_sbd(root: Path) -> Path | None:
    """The folder with ``cls`` at or under ``root``, or ``None``."""
    candidates = (root / folder for folder in _SBD_FOLDERS)
    return next((folder for folder in candidates if (folder / "cls").is_dir()), None)


def _find_devkit(root: Path) -> Path:
    candidates = (root, root / "VOC2012", root / "VOCdevkit" / "VOC2012")
    for candidate in candidates:
        if (candidate / "ImageSets" / "Segmentation").is_dir():
            return candidate
    raise DatasetError(
        str(root), ["expected ImageSets/Segmentation here, in VOC2012 or in VOCdevkit/VOC2012"]
    )
