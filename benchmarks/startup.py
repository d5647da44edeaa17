"""Time starting: the import, the dock in an open viewer, and what memory they take.

    python benchmarks/startup.py --out DIR     measures; writes DIR/startup.json and startup.md
    python benchmarks/startup.py --quick       few repeats

Every figure is the median of fresh processes, with files in the disk cache and the kernels
compiled: the first process of a kind is not counted. First it is checked that the import loads
neither torch, Qt nor napari, and that the dock comes up with its model. Without a display the dock
is timed under Xvfb; exit code 2 where there is neither, and nothing of the window is reported.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from display import NO_DISPLAY, with_display
from report import peak_bytes, publish

HEAVY = ("torch", "qtpy", "napari", "numba", "skimage")
TIMEOUT_S = 600
"""Only ends what hangs."""


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    what: str
    value: float
    unit: str
    target: str


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, help="folder for startup.json and startup.md")
    parser.add_argument("--quick", action="store_true", help="few repeats")
    parser.add_argument("--measure", choices=list(MEASURES), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(MEASURES[arguments.measure]()))
        return 0
    repeats = 2 if arguments.quick else 7
    package, torch = medians("package", repeats), medians("torch", repeats)
    memory = medians("memory", 1 if arguments.quick else 3)
    rows = [
        Row("import napari_deepcrf", package["ms"], "ms", "< 50 ms"),
        Row("import torch, for comparison", torch["s"], "s", ""),
        Row("resident after import napari_deepcrf", package["mb"], "MB", ""),
        Row("resident after import torch", torch["mb"], "MB", ""),
        Row("peak while segmenting 500×375 with voc-compact", memory["peak_mb"], "MB", ""),
    ]
    reason = NO_DISPLAY if with_display([]) is None else None
    if reason is None:
        # Else the first window would wait for the compiler, and a crowded machine for minutes.
        subprocess.run([sys.executable, "-m", "napari_deepcrf.session.warm_up"], check=True)
        dock = medians("dock", repeats)
        beyond = dock["ready_s"] - torch["s"]
        rows += [
            Row("opening the dock: window usable", dock["open_s"], "s", "< 1 s"),
            Row("opening the dock: model ready", dock["ready_s"], "s", ""),
            Row("the same beyond torch's own import", beyond, "s", ""),
        ]
    write(rows, reason, arguments.out)
    return 0 if reason is None else 2


# ---- what a process of its own measures ---------------------------------------------------------


def measure_package() -> dict[str, float]:
    start = time.perf_counter()
    import napari_deepcrf

    seconds = time.perf_counter() - start
    loaded = [name for name in HEAVY if name in sys.modules]
    if loaded or "segment" not in napari_deepcrf.__all__:
        raise SystemExit(f"Nothing was timed: import napari_deepcrf loads {loaded}")
    return {"ms": seconds * 1e3, "mb": resident_mb()}


def measure_torch() -> dict[str, float]:
    start = time.perf_counter()
    import torch

    return {
        "s": time.perf_counter() - start,
        "mb": resident_mb(),
        "threads": torch.get_num_threads(),
    }


def measure_memory() -> dict[str, float]:
    import numpy as np
    from skimage import data, transform

    import napari_deepcrf

    photo = transform.resize(data.astronaut(), (375, 500), anti_aliasing=True)
    result = napari_deepcrf.segment(np.round(photo * 255).astype(np.uint8))
    assert result.labels.shape == (375, 500)
    return {"peak_mb": peak_bytes() / 2**20}


def measure_dock() -> dict[str, float]:
    """Seconds from the click on the menu, in a viewer with a photo, as somebody would have it."""
    import napari
    from qtpy.QtWidgets import QApplication
    from skimage import data

    viewer = napari.Viewer(show=True)
    viewer.add_image(data.chelsea())
    for _ in range(10):
        QApplication.processEvents()
    if "torch" in sys.modules:
        raise SystemExit("Nothing was timed: torch was loaded before the dock")
    start = time.perf_counter()
    _, dock = viewer.window.add_plugin_dock_widget("napari-deepcrf", "DeepCRF")
    QApplication.processEvents()
    opened = time.perf_counter() - start
    if not dock.isVisible():
        raise SystemExit("Nothing was timed: the dock is not there")
    while dock.session.model is None:
        QApplication.processEvents()
        time.sleep(0.002)
        if time.perf_counter() - start > TIMEOUT_S:
            raise SystemExit("Nothing was timed: the model did not come")
    ready = time.perf_counter() - start
    while dock.runner.is_busy(quiet=False):
        QApplication.processEvents()
    viewer.close()
    return {"open_s": opened, "ready_s": ready}


MEASURES: dict[str, Callable[[], dict[str, float]]] = {
    "package": measure_package,
    "torch": measure_torch,
    "memory": measure_memory,
    "dock": measure_dock,
}


# ---- around it ----------------------------------------------------------------------------------


def medians(what: str, repeats: int) -> dict[str, float]:
    """Of every figure, over so many processes after one that is not counted."""
    command = [sys.executable, __file__, "--measure", what]
    if what == "dock":
        command = with_display(command) or command
    runs = []
    for _ in range(repeats + 1):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise SystemExit(done.stderr.strip().splitlines()[-1] if done.stderr else "no figure")
        runs.append(json.loads(done.stdout.splitlines()[-1]))
    return {key: statistics.median(run[key] for run in runs[1:]) for key in runs[0]}


def resident_mb() -> float:
    import psutil

    return float(psutil.Process().memory_info().rss / 2**20)


def write(rows: list[Row], reason: str | None, out: Path | None) -> None:
    lines = ["| what | measured | to reach |", "|---|---|---|"]
    lines += [f"| {row.what} | {row.value:.3g} {row.unit} | {row.target} |" for row in rows]
    if reason is not None:
        lines += ["", f"The dock was not timed: {reason}."]
    report = {"rows": [asdict(row) for row in rows], "not_measured": reason}
    publish(out, "startup", report, "\n".join(lines) + "\n")


if __name__ == "__main__":
    sys.exit(main())
