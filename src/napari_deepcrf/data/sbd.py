"""SBD (Hariharan et al. 2011) as it is distributed: photographs with MATLAB label files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from napari_deepcrf.data.file_dataset import FileDataset, read_text
from napari_deepcrf.data.image_files import read_rgb
from napari_deepcrf.data.matlab import read_mat_labels
from napari_deepcrf.data.problems import check_files
from napari_deepcrf.data.samples import DatasetError
from napari_deepcrf.data.voc import VOC_CLASSES, find_sbd


class SBDDataset(FileDataset):
    """One split of SBD's ``dataset`` folder (``img``, ``cls``, ``train.txt``, ``val.txt``).

    ``root`` is that folder or one above it. The 21 classes are VOC's; there is no void. Raises
    `DatasetError` where files are missing, which lists everything else that is wrong, too.
    """

    class_names: tuple[str, ...] = VOC_CLASSES

    def __init__(self, root: Path | str, split: str) -> None:
        found = find_sbd(Path(root))
        if found is None:
            raise DatasetError(str(root), ["expected SBD's folders img and cls here or in dataset"])
        self.root = found
        list_file = self.root / f"{split}.txt"
        if not list_file.is_file():
            raise DatasetError(str(self.root), [f"no split {split!r}"])
        names = tuple(read_text(list_file).split())
        if not names:
            raise DatasetError(str(self.root), [f"{list_file.name} is empty"])
        self.names = names
        self.pairs = tuple(
            (self.root / "img" / f"{name}.jpg", self.root / "cls" / f"{name}.mat") for name in names
        )
        check_files(self, self.pairs, str(self.root))

    def _read_image(self, path: Path) -> NDArray[np.uint8]:
        return read_rgb(path)

    def _read_labels(self, path: Path) -> NDArray[np.uint8]:
        return read_mat_labels(path)
