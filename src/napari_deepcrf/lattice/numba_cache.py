"""Where compiled kernels are kept, and when those that are kept no longer serve."""

from __future__ import annotations

import atexit
import hashlib
import logging
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

from numba import config, njit


def provide_cache() -> None:
    """Give Numba a folder for this process if it may write to none of its own.

    Where the package's folder and the user's cannot be written to, Numba refuses to define a
    kernel that is to be kept. Each process then compiles its own.
    """
    try:
        kept = njit(cache=True)(_nothing)
    except RuntimeError as error:
        folder = tempfile.mkdtemp(prefix="napari-deepcrf-kernels-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        config.CACHE_DIR = folder  # type: ignore[attr-defined]
        logging.getLogger(__name__).warning(
            "Kernels are compiled anew in every process, set NUMBA_CACHE_DIR to a folder that can "
            "be written to: %s",
            error,
        )
    else:
        place = kept.stats.cache_path
        assert place is not None  # it has a cache
        discard_outdated(Path(place))


def discard_outdated(folder: Path) -> None:
    """Empty this package's cache unless a marker says that these very sources have filled it.

    Numba watches the file that defines a kernel, but neither those that it calls nor the types of
    its arguments: after an upgrade it would run old code, or fail to read what it has kept.
    """
    sources = sorted(Path(__file__).parent.glob("numba_*.py"))
    digest = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()
    marker = folder / f"napari-deepcrf-{digest[:16]}"
    if marker.exists():
        return
    for pattern in ("numba_*.nbi", "numba_*.nbc", "napari-deepcrf-*"):
        for outdated in folder.glob(pattern):
            with suppress(OSError):  # another process was faster, or has it open
                outdated.unlink()
    with suppress(OSError):
        marker.touch()


def _nothing() -> None:
    pass
