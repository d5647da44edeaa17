"""Makes the pictures of the dock, in ``docs/images`` or the FOLDER that is given.

    xvfb-run -a -s "-screen 0 1400x1200x24" python docs/screenshots.py [FOLDER]

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

WINDOW, TALL = demo.WINDOW, 980
"""Size of the window in pixels; with its panel of training whole, so high."""
PANELS = ("crf", "annotate", "train", "tools", "batch")


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    annotating.AUTOSAVE_FOLDER = Path(tempfile.mkdtemp())
    viewer, dock = demo.open_demo()
    demo.wait_for_result(dock)
    paint(dock)
    dock.batch_panel.tiles.choose_out("/home/me/slides")
    dock.batch_panel.set_folders("/home/me/photos", "/home/me/labels")
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
            if name != "train":
                dock.grab().save(str(folder / f"{name}-{theme}.png"))
    train(dock)
    dock.tabs.setCurrentIndex(PANELS.index("train"))
    viewer.window.resize(WINDOW[0], TALL)
    for theme in ("dark", "light"):
        viewer.theme = theme
        process(0.5)
        dock.grab().save(str(folder / f"train-{theme}.png"))
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


def train(dock: Any) -> None:
    """Train on the strokes, and let the two models be compared."""
    dock.train()
    wait(lambda: dock.learning.on_trial)
    wait(lambda: not (dock.runner.is_busy() or dock.training.is_waiting))


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
