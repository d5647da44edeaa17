"""Where compiled kernels are kept on machines that let nothing be kept."""

from __future__ import annotations

import atexit
import logging
import shutil
import tempfile

from numba import config, njit


def provide_cache() -> None:
    """Give Numba a folder for this process if it may write to none of its own.

    Where the package's folder and the user's cannot be written to, Numba refuses to define a
    kernel that is to be kept. Each process then compiles its own.
    """
    try:
        njit(cache=True)(_nothing)
    except RuntimeError as error:
        folder = tempfile.mkdtemp(prefix="napari-deepcrf-kernels-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        config.CACHE_DIR = folder  # type: ignore[attr-defined]
        logging.getLogger(__name__).warning(
            "Kernels are compiled anew in every process, set NUMBA_CACHE_DIR to a folder that can "
            "be written to: %s",
            error,
        )


def _nothing() -> None:
    pass
