"""Compiles the CPU kernels once: ``python -m napari_deepcrf.session.warm_up``.

Compiling takes many seconds and holds the interpreter lock in long stretches, so a window lets
another process do it; what that leaves in Numba's cache loads in a fraction of a second.
"""

from __future__ import annotations

from pathlib import Path


def kernels_are_cached() -> bool:
    """Whether Numba's cache beside the kernels is newer than every source of theirs."""
    import napari_deepcrf.lattice

    folder = Path(napari_deepcrf.lattice.__file__).parent
    sources = [path.stat().st_mtime for path in folder.glob("numba_*.py")]
    cached = [path.stat().st_mtime for path in folder.glob("__pycache__/numba_*.nbi")]
    return bool(cached) and max(cached) > max(sources, default=0.0)


def run_kernels() -> None:
    """Run the kernels once for as many labels as VOC has: compiles them, or loads the cache."""
    from napari_deepcrf.data.voc import VOC_CLASSES
    from napari_deepcrf.lattice.numba_warm_up import warm_up

    warm_up(len(VOC_CLASSES))


if __name__ == "__main__":
    run_kernels()
