"""Compiles the CPU kernels once: ``python -m napari_deepcrf.session.warm_up [WHICH]``.

WHICH is nothing for the usual ones, ``first`` for those of a first segmentation, or two numbers,
LABELS CHANNELS.

Compiling takes many seconds and holds the interpreter lock in long stretches, so a window lets
another process do it; what that leaves in Numba's cache loads in a fraction of a second.
"""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path

import napari_deepcrf
from napari_deepcrf.download import cache_folder
from napari_deepcrf.session.events import Event, Progress

FIRST = 21
"""VOC's number of labels, which the model that a window opens with has."""
LABELS = (FIRST, 2, 8, 16)
"""One number of labels for each compiled width up to 24, scribbles' among them."""
CHANNELS = 3

_asked_for: set[tuple[int, int]] = set()
"""Widths and channels that another process was asked for: once each, whether it worked or not."""


def kernels_are_cached(labels: Sequence[int] = LABELS, channels: int = CHANNELS) -> bool:
    """Whether a warm-up has ended on this machine for these very sources, Python and Numba."""
    return all(_marker(_width(number), channels).exists() for number in labels)


def first_kernels_are_cached() -> bool:
    """As `kernels_are_cached`, of what `run_first_kernels` runs."""
    return _marker("first").exists()


def run_first_kernels() -> None:
    """Run once what a first segmentation runs, a fifth of all: compiles it, or loads the cache."""
    from napari_deepcrf.crf.warm_up import warm_up_segmenting

    warm_up_segmenting(FIRST, channels=CHANNELS)
    _remember(_marker("first"))


def run_kernels(labels: Sequence[int] = LABELS, channels: int = CHANNELS) -> None:
    """Run the kernels once for numbers of labels: compiles them, or loads the cache."""
    from napari_deepcrf.crf.warm_up import warm_up

    for number in labels:
        warm_up(number, channels=channels)
        _remember(_marker(_width(number), channels))


def _remember(marker: Path) -> None:
    """Leave a marker where that is possible."""
    try:
        marker.parent.mkdir(parents=True, exist_ok=True)
        marker.touch()
    except OSError as error:
        # Without a place to write, the next start asks another process again: slower, not wrong.
        print(f"{marker}: {error}", file=sys.stderr)


def compile_missing(
    labels: int, channels: int, device: str, *, segmenting: bool = False
) -> Iterator[Event]:
    """Have another process compile what so many labels and channels need and nobody compiled yet.

    Yields progress meanwhile, and nothing for what is cached, on a GPU, or in the main thread:
    there no window stands still. For `segmenting` in the quality "fast", the first kernels are
    enough. A failure leaves the work to this process.
    """
    if device != "cpu" or threading.current_thread() is threading.main_thread():
        return
    width = _width(labels)
    if (width, channels) in _asked_for or kernels_are_cached((width,), channels):
        return
    is_first = segmenting and (width, channels) == (_width(FIRST), CHANNELS)
    if is_first and first_kernels_are_cached():
        return
    _asked_for.add((width, channels))
    try:
        yield from compile_in_another_process(
            f"Preparing kernels for {labels} classes, {channels} channels (once)",
            (str(width), str(channels)),
        )
    except GeneratorExit:  # cancelled: neither worked nor failed
        _asked_for.discard((width, channels))
        raise


def compile_in_another_process(text: str, arguments: Sequence[str] = ()) -> Iterator[Event]:
    """Fill Numba's cache; yields progress with a text until the process ends, kills it if closed.

    A failure leaves the work to this process. Two windows that start at once compile the same
    twice, which no lock prevents: Numba replaces its files whole, and a lock could be left behind.
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


def _marker(*what: int | str) -> Path:
    """An empty file whose name stands for everything that Numba's cache depends on.

    That is the kernels' sources, all that decides which of them run on what, and the machine: where
    several share a home, their processors may differ, and so does the code. Numba keeps its cache
    beside the sources, in ``NUMBA_CACHE_DIR`` or in the user's folder, whichever it may write to;
    none of them tells whether a warm-up came to its end.
    """
    package = Path(napari_deepcrf.__file__).parent
    files = [*package.glob("lattice/*.py"), *package.glob("crf/*.py")]
    sources = sorted((str(file), file.stat().st_mtime_ns) for file in files)
    cache = os.environ.get("NUMBA_CACHE_DIR")
    parts = (sources, platform.node(), sys.version, version("numba"), cache, *what)
    return cache_folder() / f"kernels-{hashlib.sha256(repr(parts).encode()).hexdigest()[:16]}"


if __name__ == "__main__":
    match sys.argv[1:]:
        case []:
            run_kernels()
        case ["first"]:
            run_first_kernels()
        case [labels, channels]:
            run_kernels((int(labels),), int(channels))
