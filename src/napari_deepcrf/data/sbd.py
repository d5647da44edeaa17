"""SBD (Hariharan et al. 2011) as it is distributed: photographs with MATLAB label files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from napari_deepcrf.data.samples import DatasetError, Sample
from napari_deepcrf.data.voc import VOC_CLASSES, read_rgb


class SBDDataset:
    """One split of SBD's ``dataset`` folder (``img``, ``cls``, ``train.txt``, ``val.txt``).

    ``root`` is that folder or one above it. The 21 classes are VOC's; there is no void. Raises
    `DatasetError` that lists every missing file at once.
    """

    class_names = VOC_CLASSES

    def __init__(self, root: Path | str, split: str) -> None:
        self.root = _find(Path(root))
        list_file = self.root / f"{split}.txt"
        if not list_file.is_file():
            raise DatasetError(str(self.root), [f"no split {split!r}"])
        self.names = tuple(list_file.read_text().split())
        problems = [
            f"missing {path.relative_to(self.root)}" for path in self.files if not path.is_file()
        ]
        if problems or not self.names:
            raise DatasetError(str(self.root), problems or [f"{list_file.name} is empty"])

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file whose content the samples come from."""
        pairs = ((f"img/{name}.jpg", f"cls/{name}.mat") for name in self.names)
        return tuple(self.root / path for pair in pairs for path in pair)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Sample:
        name = self.names[index]
        image = read_rgb(self.root / "img" / f"{name}.jpg")
        return Sample(name, image, read_mat_labels(self.root / "cls" / f"{name}.mat"))


def read_mat_labels(path: Path | str) -> NDArray[np.uint8]:
    """(H, W) class indices of a ``cls/*.mat`` file: its field GTcls.Segmentation.

    Raises ValueError, naming the file, where it is none.
    """
    from scipy.io import loadmat  # type: ignore[import-untyped]

    try:
        truth = loadmat(path, squeeze_me=True)["GTcls"]
        return np.asarray(truth["Segmentation"].item(), dtype=np.uint8)
    # loadmat raises whatever a broken file leads it to.
    except Exception as error:
        raise ValueError(f"{path}: expected SBD's GTcls.Segmentation ({error})") from error


def _find(root: Path) -> Path:
    for candidate in (root, root / "dataset", root / "benchmark_RELEASE" / "dataset"):
        if (candidate / "cls").is_dir():
            return candidate
    raise DatasetError(str(root), ["expected SBD's folders img and cls here or in dataset"])
