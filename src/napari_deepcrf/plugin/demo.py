"""The demonstration: the sample photo, the dock and the result as layers, in a window.

``python -m napari_deepcrf.plugin.demo`` opens it. With ``--offscreen``, or on a Linux without a
display, it writes the labels, an overlay and a picture of the window into ``--out DIR`` instead.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from napari.viewer import Viewer

    from napari_deepcrf.plugin.dock import DeepCRFWidget

TIMEOUT_S = 1200
"""Only ends what hangs: a crowded machine may compile for minutes."""
WINDOW = (1280, 860)


def open_demo(*, show: bool = True) -> tuple[Viewer, DeepCRFWidget]:
    """Open a viewer with the sample photo and the dock; Segment starts as soon as it can."""
    import napari
    from qtpy.QtCore import QTimer

    viewer = napari.Viewer(show=show, title="napari-deepcrf demo")
    viewer.window.resize(*WINDOW)
    viewer.open_sample("napari-deepcrf", "cat")
    _, dock = viewer.window.add_plugin_dock_widget("napari-deepcrf", "DeepCRF")
    QTimer.singleShot(0, viewer.reset_view)  # to the room that the dock leaves
    dock.segment_when_ready()
    return viewer, dock


def wait_for_result(dock: DeepCRFWidget, timeout: float = TIMEOUT_S) -> None:
    """Let the window work until the result's layers are there.

    Raises
    ------
    RuntimeError
        If the dock reports an error, or nothing comes in time.
    """
    done: list[object] = []
    curves: list[object] = []
    failed: list[str] = []
    dock.segmenting.shown.connect(done.append)
    dock.segmenting.refused.connect(failed.append)
    dock.runner.failed.connect(lambda _job, message: failed.append(message))
    _process_until(lambda: bool(done or failed), timeout)
    if failed:
        raise RuntimeError(failed[0])
    dock.session.divergence_changed.connect(curves.append)
    _process_until(lambda: bool(curves and curves[-1]), timeout)
    _process_until(lambda: not dock.runner.is_busy(quiet=False), timeout)


def save_pictures(viewer: Viewer, dock: DeepCRFWidget, folder: Path) -> list[Path]:
    """Write labels.png (VOC palette), overlay.png and window.png; returns their paths."""
    from PIL import Image

    from napari_deepcrf.data.label_files import voc_palette, write_labels

    folder.mkdir(parents=True, exist_ok=True)
    layer, result = dock.image_choice.layer, dock.session.result
    assert layer is not None
    assert result is not None
    paths = [folder / name for name in ("labels.png", "overlay.png", "window.png")]
    write_labels(paths[0], result.labels)
    photo = np.asarray(layer.data, dtype=np.float32)
    colours = voc_palette()[result.labels].astype(np.float32)
    overlay = np.where(result.labels[..., None] > 0, 0.45 * photo + 0.55 * colours, photo)
    Image.fromarray(overlay.astype(np.uint8)).save(paths[1])
    Image.fromarray(viewer.screenshot(canvas_only=False, flash=False)).save(paths[2])
    return paths


def main(arguments: list[str] | None = None) -> int:
    """Entry point of ``python -m napari_deepcrf.plugin.demo``; returns the exit code."""
    parser = argparse.ArgumentParser(prog="napari_deepcrf.plugin.demo", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("demo-output"), help="folder for PNG")
    parser.add_argument("--offscreen", action="store_true", help="write PNG and close")
    options = parser.parse_args(arguments)
    if _needs_xvfb():
        return _run_under_xvfb(options.out)
    viewer, dock = open_demo(show=True)
    if not options.offscreen:
        import napari

        napari.run()
        return 0
    try:
        wait_for_result(dock)
        for path in save_pictures(viewer, dock, options.out):
            print(path)
    except RuntimeError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    finally:
        from napari.qt.threading import GeneratorWorker

        viewer.close()
        GeneratorWorker.await_workers()  # what still compiles has been told to stop
    return 0


def _process_until(condition: Callable[[], bool], timeout: float) -> None:
    from qtpy.QtWidgets import QApplication

    end = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > end:
            raise RuntimeError(f"nothing came within {timeout:.0f} s")
        QApplication.processEvents()
        time.sleep(0.005)


def _needs_xvfb() -> bool:
    displays = ("DISPLAY", "WAYLAND_DISPLAY")
    return sys.platform.startswith("linux") and not any(os.environ.get(d) for d in displays)


def _run_under_xvfb(out: Path) -> int:
    """Run this module again in a virtual display."""
    tool = shutil.which("xvfb-run")
    if tool is None:
        print("error: there is no display and xvfb-run is not installed", file=sys.stderr)
        return 1
    screen = "-screen 0 {}x{}x24".format(*(side + 200 for side in WINDOW))
    command = [tool, "-a", "-s", screen, sys.executable, "-m", "napari_deepcrf.plugin.demo"]
    return subprocess.run([*command, "--offscreen", "--out", str(out)], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
