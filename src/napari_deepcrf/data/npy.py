"""Single arrays in .npy files, read without pickle and written whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_deepcrf.atomic import atomic_write


def read_array(path: Path | str) -> NDArray[Any]:
    """The array of a .npy file; nothing in it is ever unpickled.

    Raises FileNotFoundError for a missing file, ValueError for one that holds no plain array.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        array = np.load(path, allow_pickle=False)
    # A forged header can also ask for more memory than there is, or be no Python at all.
    except (ValueError, OSError, EOFError, MemoryError, SyntaxError, OverflowError) as error:
        raise ValueError(f"{path}: expected a .npy file with one array of numbers") from error
    if not isinstance(array, np.ndarray):
        raise ValueError(f"{path}: expected a .npy file with one array, got an archive of several")
    return array


def write_array(path: Path | str, array: NDArray[Any]) -> None:
    """Write an array as a .npy file, which appears whole or not at all."""
    with atomic_write(path) as stream:
        np.save(stream, array, allow_pickle=False)
