"""Compiles the CPU kernels once: ``python -m napari_deepcrf.session.warm_up``.

Compiling takes many seconds and holds the interpreter lock in long stretches, so a window lets
another process do it; what that leaves in Numba's cache loads in a fraction of a second.
"""

from __future__ import annotations

import hashlib
import os
import sys
from importlib.metadata import version
from pathlib import Path

from napari_deepcrf.download import cache_folder

LABELS = (2, 8, 16, 21)
"""One number of labels for each compiled width up to 24, scribbles' and VOC's among them."""


def kernels_are_cached() -> bool:
    """Whether a warm-up has ended on this machine for these very sources, Python and Numba."""
    return _marker().exists()


def run_kernels() -> None:
    """Run the kernels once for the usual numbers of labels: compiles them, or loads the cache."""
    from napari_deepcrf.crf.warm_up import warm_up

    for labels in LABELS:
        warm_up(labels)
    marker = _marker()
    try:
        marker.parent.mkdir(parents=True, exist_ok=True)
        marker.touch()
    except OSError as error:
        # Without a place to write, the next start asks another process again: slower, not wrong.
        print(f"{marker}: {error}", file=sys.stderr)


def _marker() -> Path:
    """An empty file whose name stands for everything that Numba's cache depends on.

    Numba keeps its cache beside the sources, in ``NUMBA_CACHE_DIR`` or in the user's folder,
    whichever it may write to; none of them tells whether a warm-up came to its end.
    """
    import napari_deepcrf.lattice

    folder = Path(napari_deepcrf.lattice.__file__).parent
    sources = sorted((str(p), p.stat().st_mtime_ns) for p in folder.glob("numba_*.py"))
    parts = (sources, sys.version, version("numba"), os.environ.get("NUMBA_CACHE_DIR"), LABELS)
    return cache_folder() / f"kernels-{hashlib.sha256(repr(parts).encode()).hexdigest()[:16]}"


if __name__ == "__main__":
    run_kernels()
