"""Makes the pictures of the dock: ``xvfb-run -a python docs/screenshots.py [FOLDER]``.

Every panel in both themes, as PNG, and the whole window. Needs a display, real or virtual.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from napari_deepcrf.plugin import annotating, demo

PANELS = ("crf", "annotate", "train", "tools", "batch")


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    annotating.AUTOSAVE_FOLDER = Path(tempfile.mkdtemp())
    viewer, dock = demo.open_demo()
    demo.wait_for_result(dock)
    paint(dock)
    fill_curves(dock.train_panel)
    dock.batch_panel.set_folders("/home/me/photos", "/home/me/photos/labels")
    dock.tools_panel.minimum.setValue(50)
    dock.tools_panel.objects.click()
    wait(lambda: dock.tools_panel.table.rowCount() > 0)
    viewer.layers.remove(viewer.layers["chelsea [cat objects]"])
    viewer.layers.selection.active = viewer.layers["chelsea"]
    for theme in ("dark", "light"):
        viewer.theme = theme
        for index, name in enumerate(PANELS):
            dock.tabs.setCurrentIndex(index)
            process(0.3)
            if name == "crf":
                save(viewer.screenshot(canvas_only=False, flash=False), folder / f"window-{theme}")
            dock.grab().save(str(folder / f"{name}-{theme}.png"))
    viewer.close()


def paint(dock: Any) -> None:
    """A few strokes on the cat and beside it."""
    dock.annotate()
    layer = dock.annotating.layer
    for row in range(90, 250, 3):
        layer.paint((row, 230 + (row - 90) // 4), 9, refresh=False)
    for column in range(5, 60, 3):
        layer.paint((20, column), 1, refresh=False)
    layer.refresh()
    wait(lambda: not dock.annotating.is_waiting and not dock.runner.is_busy())


def fill_curves(panel: Any) -> None:
    """Show the Train panel as it looks near the end of a training."""
    rng = np.random.default_rng(0)
    panel.start_curves()
    panel.add_stage("unary")
    for step in range(1, 61):
        panel.add_loss(step, 1.4 * np.exp(-step / 15) + 0.1 + 0.05 * rng.random())
        if step % 10 == 0:
            panel.add_iou("unary", step, 0.78 - 0.4 * np.exp(-step / 20))
    panel.add_stage("joint")
    for step in range(1, 11):
        panel.add_loss(step, 0.12 * np.exp(-step / 8) + 0.02 * rng.random())
        panel.add_iou("joint", step, 0.86 - 0.07 * np.exp(-step / 3))
    panel.progress.setText("joint stage, step 10 of 10, loss 0.041, 0:00 min left in this stage")
    panel.measured_on.setText("Training on 1 image; the IoU is that of the painted pixels")
    panel.show_changed(0.062, "chelsea")
    panel.show_view("after")
    panel.show_verdict(
        "The trained model is in use on trial. Keep it, or revert to the one before?"
    )


def process(seconds: float) -> None:
    """Let the window draw for a while."""
    import time

    end = time.monotonic() + seconds
    wait(lambda: time.monotonic() > end)


def wait(condition: Callable[[], bool]) -> None:
    """Let the window work until the condition holds."""
    import time

    from qtpy.QtWidgets import QApplication

    while not condition():
        QApplication.processEvents()
        time.sleep(0.005)


def save(pixels: np.ndarray, path: Path) -> None:
    """Write an RGBA array as PNG."""
    from PIL import Image

    Image.fromarray(pixels).convert("RGB").save(path.with_suffix(".png"), optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "images")
