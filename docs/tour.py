"""Makes the animated tour: ``xvfb-run -a -s "-screen 0 1400x1000x24" python docs/tour.py [FILE]``.

Scribble on a photo of scikit-image's, train on the strokes, slide: the real window, its frames
put together as a GIF. Needs a display, real or virtual.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from napari_deepcrf.plugin import annotating, demo

sys.path.insert(0, str(Path(__file__).parent))
from screenshots import process, wait

WINDOW, WIDTH = (1060, 760), 760
COLOURS = 72
MOST_BYTES = 1_500_000
STATUS_BAR = 26
"""Pixels at the bottom of the window that are left out: they tell of a mouse that nobody moves."""
STROKES = (
    # class, from (row, column), to
    ("cat", (95, 235), (230, 275)),
    ("cat", (150, 130), (235, 175)),
    ("background", (22, 8), (120, 22)),
    ("background", (12, 390), (90, 438)),
)


class Film:
    """Frames of a viewer's window with what is going on written below."""

    def __init__(self, viewer: Any) -> None:
        self.viewer = viewer
        self.frames: list[Image.Image] = []
        self.durations: list[int] = []
        self.caption = ""

    def shoot(self, milliseconds: int) -> None:
        """Add the window as it is now."""
        process(0.05)
        shot = Image.fromarray(self.viewer.screenshot(canvas_only=False, flash=False))
        shot = shot.crop((0, 0, shot.width, shot.height - STATUS_BAR))
        height = round(shot.height * WIDTH / shot.width)
        frame = Image.new("RGB", (WIDTH, height + 26), "#1c1f24")
        frame.paste(shot.convert("RGB").resize((WIDTH, height), Image.Resampling.LANCZOS))
        font = ImageFont.load_default(14)
        ImageDraw.Draw(frame).text((10, height + 4), self.caption, "white", font)
        self.frames.append(frame)
        self.durations.append(milliseconds)

    def save(self, path: Path) -> None:
        """Write the frames with one palette for all, so that what stays costs nothing."""
        sample = np.concatenate([np.asarray(frame)[::3, ::3] for frame in self.frames[::3]])
        palette = Image.fromarray(sample).quantize(COLOURS, Image.Quantize.MEDIANCUT)
        drawn = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in self.frames]
        drawn[0].save(
            path,
            save_all=True,
            append_images=drawn[1:],
            duration=self.durations,
            loop=0,
            optimize=False,
            disposal=1,
        )


def main(path: Path) -> None:
    """Play the tour and film it."""
    annotating.AUTOSAVE_FOLDER = Path(tempfile.mkdtemp())
    viewer, dock = demo.open_demo()
    viewer.window.resize(*WINDOW)
    demo.wait_for_result(dock)
    viewer.reset_view()
    film = Film(viewer)
    scribble(film, dock)
    train(film, dock)
    slide(film, dock)
    film.save(path)
    viewer.close()
    size = path.stat().st_size
    print(f"{path}: {len(film.frames)} frames, {size / 1e6:.2f} MB")
    assert size < MOST_BYTES, "the tour is too large to be kept in the history"


def scribble(film: Film, dock: Any) -> None:
    """Paint two classes; live mode follows each stroke."""
    film.caption = "1  Scribble: a few strokes a class; live mode follows each of them"
    dock.annotate()
    names = list(dock.learning.classes.names)
    layer = dock.annotating.layer
    idle(dock)
    film.shoot(900)
    for number, (name, start, end) in enumerate(STROKES):
        dock.annotating.pick(names.index(name))
        for part in range(1, 4):
            for t in np.linspace((part - 1) / 3, part / 3, 25):
                place = [a + t * (b - a) for a, b in zip(start, end, strict=True)]
                layer.paint(place, names.index(name) + 1, refresh=False)
            layer.refresh()
            film.shoot(160)
        if number == 2:
            dock.annotate_panel.live.setChecked(True)
        idle(dock)
        film.shoot(900)


def train(film: Film, dock: Any) -> None:
    """Train on the strokes; the curves grow, and the two models are compared."""
    film.caption = "2  Train: both stages in the background, with live curves"
    dock.annotate_panel.live.setChecked(False)
    dock.train()
    seen = 0
    steps = dock.train_panel.steps
    while not dock.learning.on_trial:
        process(0.1)
        if len(steps()) >= seen + 8:
            seen = len(steps())
            film.shoot(250)
    idle(dock)
    film.caption = "   then compare the model before and after, keep or revert"
    for view in ("before", "after"):
        dock.train_panel.views[view].click()
        film.shoot(1100)
    dock.train_panel.keep.click()
    idle(dock)


def slide(film: Film, dock: Any) -> None:
    """Move a width and look at the labels follow."""
    film.caption = "3  Slide: the labels follow the CRF's widths and weights"
    dock.tabs.setCurrentIndex(0)
    slider = dock.crf_panel.sliders["w_bilateral"][0].slider
    start = slider.value()
    film.shoot(700)
    for position in (*np.linspace(start, 250, 4), *np.linspace(350, 850, 5)):
        slider.setValue(round(position))
        idle(dock)
        film.shoot(350)
    film.shoot(1200)


def idle(dock: Any) -> None:
    """Wait until the window has nothing to do."""
    parts = (dock.segmenting, dock.annotating, dock.training)
    wait(lambda: not dock.runner.is_busy() and not any(part.is_waiting for part in parts))


if __name__ == "__main__":
    default = Path(__file__).parent / "images" / "tour.gif"
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else default)
