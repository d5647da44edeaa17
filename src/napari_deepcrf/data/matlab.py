"""SBD's MATLAB label files, and the folder they lie in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

SBD_FOLDERS = ("", "dataset", "benchmark_RELEASE/dataset")
"""Where SBD's ``img`` and ``cls`` may lie under a folder that someone names."""


def find_sbd(root: Path) -> Path | None:
    """The folder with ``cls`` at or under ``root``, or ``None``."""
    candidates = (root / folder for folder in SBD_FOLDERS)
    return next((folder for folder in candidates if (folder / "cls").is_dir()), None)


def read_mat_labels(path: Path | str) -> NDArray[np.uint8]:
    """(H, W) class indices of a ``cls/*.mat`` file: its field GTcls.Segmentation.

    Raises ValueError, naming the file, where it is none.
    """
    from scipy.io import loadmat

    try:
        truth = loadmat(path, squeeze_me=True)["GTcls"]
        return np.asarray(truth["Segmentation"].item(), dtype=np.uint8)
    # loadmat raises whatever a broken file leads it to.
    except Exception as error:
        raise ValueError(f"{path}: expected SBD's GTcls.Segmentation ({error})") from error
