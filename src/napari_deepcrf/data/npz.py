"""Archives of NumPy arrays, read without pickle and without trust in their headers."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.lib.npyio import NpzFile

from napari_deepcrf.messages import first_line

MOST_INFLATED = 1 << 32
"""Bytes by which an archive may grow when it is read; what is stored as it is grows by none."""

_ZIP_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError)
_HEADER_DAMAGE = (ValueError, KeyError, TypeError, SyntaxError, ArithmeticError, MemoryError)
"""What damage leads to: zipfile, and NumPy's headers, which are Python."""


@contextmanager
def open_npz(path: Path | str) -> Iterator[NpzFile]:
    """The arrays of an ``.npz`` by their names, each read when it is asked for.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ValueError
        In one line, whatever is wrong with the file, also where reading inside the block finds
        it: an array that is asked for and missing, damage, pickled objects, more than
        `MOST_INFLATED` bytes behind compression, or more memory asked for than there is.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(part.file_size - part.compress_size for part in archive.infolist()) > (
                MOST_INFLATED
            ):
                raise ValueError(f"inflates by more than {MOST_INFLATED >> 30} GiB")
        with np.load(path, allow_pickle=False) as arrays:
            yield arrays
    except FileNotFoundError:
        raise
    except (*_ZIP_DAMAGE, *_HEADER_DAMAGE) as error:
        raise ValueError(f"{path}: expected an .npz of arrays ({first_line(error)})") from error
