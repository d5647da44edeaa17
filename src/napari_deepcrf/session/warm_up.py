"""Compiles the CPU kernels once: ``python -m napari_deepcrf.session.warm_up [LABELS CHANNELS]``.

Compiling takes many seconds and holds the interpreter lock in long stretches, so a window lets
another process do it; what that leaves in Numba's cache loads in a fraction of a second.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path

from napari_deepcrf.download import cache_folder
from napari_deepcrf.session.events import Event, Progress

LABELS = (2, 8, 16, 21)
"""One number of labels for each compiled width up to 24, scribbles' and VOC's among them."""
CHANNELS = 3

_asked_for: set[tuple[int, int]] = set()
"""Widths and channels that another process was asked for: once each, whether it worked or not."""


def kernels_are_cached(labels: Sequence[int] = LABELS, channels: int = CHANNELS) -> bool:
    """Whether a warm-up has ended on this machine for these very sources, Python and Numba."""
    return _marker(labels, channels).exists()


def run_kernels(labels: Sequence[int] = LABELS, channels: int = CHANNELS) -> None:
    """Run the kernels once for numbers of labels: compiles them, or loads the cache."""
    from napari_deepcrf.crf.warm_up import warm_up

    for number in labels:
        warm_up(number, channels=channels)
    marker = _marker(labels, channels)
    try:
        marker.parent.mkdir(parents=True, exist_ok=True)
        marker.touch()
    except OSError as error:
        # Without a place to write, the next start asks another process again: slower, not wrong.
        print(f"{marker}: {error}", file=sys.stderr)


def compile_unusual(labels: int, channels: int, device: str) -> Iterator[Event]:
    """Have another process compile what so many labels and channels need and nobody compiled yet.

    Yields progress meanwhile, and nothing for the usual numbers, on a GPU, or in the main thread:
    there no window stands still. A failure leaves the work to this process.
    """
    if device != "cpu" or threading.current_thread() is threading.main_thread():
        return
    width = _width(labels)
    usual = channels == CHANNELS and width in map(_width, LABELS)
    if usual or (width, channels) in _asked_for or kernels_are_cached((width,), channels):
        return
    _asked_for.add((width, channels))
    yield from compile_in_another_process(
        f"Preparing kernels for {labels} classes, {channels} channels (once)",
        (str(width), str(channels)),
    )


def compile_in_another_process(text: str, arguments: Sequence[str] = ()) -> Iterator[Event]:
    """Fill Numba's cache; yields progress with a text until the process ends, kills it if closed.

    A failure leaves the work to this process.
    """
    command = [sys.executable, "-m", "napari_deepcrf.session.warm_up", *arguments]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as child:
        try:
            while child.poll() is None:
                yield Progress(text)
                time.sleep(0.1)
        finally:
            child.kill()


def _width(labels: int) -> int:
    """The number of labels that kernels are compiled for, as in `crf.warm_up`."""
    return 4 if labels <= 4 else -(-labels // 8) * 8


def _marker(labels: Sequence[int], channels: int) -> Path:
    """An empty file whose name stands for everything that Numba's cache depends on.

    Numba keeps its cache beside the sources, in ``NUMBA_CACHE_DIR`` or in the user's folder,
    whichever it may write to; none of them tells whether a warm-up came to its end.
    """
    import napari_deepcrf.lattice

    folder = Path(napari_deepcrf.lattice.__file__).parent
    sources = sorted((str(p), p.stat().st_mtime_ns) for p in folder.glob("numba_*.py"))
    cache = os.environ.get("NUMBA_CACHE_DIR")
    parts = (sources, sys.version, version("numba"), cache, tuple(labels), channels)
    return cache_folder() / f"kernels-{hashlib.sha256(repr(parts).encode()).hexdigest()[:16]}"


if __name__ == "__main__":
    if len(sys.argv) > 1:
        run_kernels((int(sys.argv[1]),), int(sys.argv[2]))
    else:
        run_kernels()
