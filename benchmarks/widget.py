"""Times what a user of the dock waits for, in a real window on an idle machine.

    xvfb-run -a python benchmarks/widget.py [--out DIR] [--quick]

Opening the dock; a stroke until its result is shown, and a slider until new labels are and until
all layers are up to date, at 512×512; Cancel in segmenting and in both stages of a training; and
the longest gap between two ticks of a timer of 10 ms in the window's thread while each of these
goes on. Prints the rows of a Markdown table as they are measured; every result is checked to be
fresh before its time counts.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from qtpy.QtWidgets import QApplication
from skimage import data

from heartbeat import Heartbeat
from napari_deepcrf.plugin import annotating, preferences

TARGETS = {
    "first stroke in live mode": 1.5,
    "stroke to result": 1.5,
    "slider to labels": 0.3,
    "cancel while segmenting": 1.0,
    "cancel in the unary stage": 1.0,
    "cancel in the joint stage": 1.0,
}
"""Seconds."""
LONGEST_GAP = 0.1
"""Seconds, whatever goes on."""


class Bench:
    """An open window with the dock, and what is measured in it."""

    def __init__(self, repeats: int) -> None:
        import napari

        self.repeats = repeats
        self.times: dict[str, list[float]] = {}
        self.gaps: dict[str, float] = {}
        self.rows: list[str] = []
        self.say("| | median, s | worst, s | target, s | longest gap, ms |")
        self.say("|---|---:|---:|---:|---:|")
        self.viewer = napari.Viewer(show=True)
        self.viewer.window.resize(1280, 860)
        self.viewer.add_image(data.astronaut(), name="astronaut")
        settle(1.0)
        start = time.perf_counter()
        _, self.dock = self.viewer.window.add_plugin_dock_widget("napari-deepcrf", "DeepCRF")
        QApplication.processEvents()
        self.record("dock drawn", [time.perf_counter() - start])
        with Heartbeat() as beat:
            wait(lambda: self.dock.session.model is not None)
        self.record("libraries and model loaded", [time.perf_counter() - start], beat.worst)
        self.idle()

    def run(self) -> None:
        """Measure everything."""
        self.segment()  # windows, shaders and lattices are made once
        self.measure("segmenting", self.segment, self.repeats)
        self.measure("slider to labels", self.slide, 2 * self.repeats)
        self.measure("slider to all layers", self.slide_whole, 2 * self.repeats)
        self.measure("loading a model", self.load, self.repeats)
        self.prepare_strokes()
        self.measure("first stroke in live mode", self.start_live, 1)
        self.measure("stroke to result", self.stroke, self.repeats)
        self.dock.annotate_panel.live.setChecked(False)
        self.idle()
        self.measure("cancel while segmenting", self.cancel_segmenting, self.repeats)
        self.measure("cancel in the unary stage", lambda: self.cancel_training("unary"), 1)
        self.measure("cancel in the joint stage", lambda: self.cancel_training("joint"), 1)
        self.measure("a training and its end", self.train, 1)

    def measure(self, name: str, action: Callable[[], float], repeats: int) -> None:
        """Times that ``action`` returns, and the longest gap meanwhile."""
        with Heartbeat() as beat:
            times = [action() for _ in range(repeats)]
        self.record(name, times, beat.worst)

    def record(self, name: str, times: list[float], gap: float | None = None) -> None:
        """Print a row: median and worst of the times, the target, and the longest gap."""
        self.times[name] = times
        if gap is not None:
            self.gaps[name] = gap
        shown = "–" if gap is None else f"{1000 * gap:.0f}"
        figures = f"{statistics.median(times):.2f} | {max(times):.2f} | {TARGETS.get(name, '–')}"
        self.say(f"| {name} | {figures} | {shown} |")

    def say(self, row: str) -> None:
        """Print a row at once: whoever stops a long run keeps what it measured."""
        self.rows.append(row)
        print(row, flush=True)

    def shown_after(self, action: Callable[[], object]) -> float:
        """Seconds from an action until a fresh result is in the layers."""
        shown: list[Any] = []
        self.dock.segmenting.shown.connect(shown.append)
        start = time.perf_counter()
        action()
        wait(lambda: shown)
        seconds = time.perf_counter() - start
        self.dock.segmenting.shown.disconnect(shown.append)
        assert self.dock.session.fresh
        self.idle()
        return seconds

    def segment(self) -> float:
        """Press Segment on new pixels."""
        layer = self.viewer.layers["astronaut"]
        layer.data = np.roll(layer.data, 1, axis=1)
        return self.shown_after(self.dock.source_panel.segment.click)

    def slide(self) -> float:
        """Move the colour width, which builds its lattice anew; until new labels are drawn."""
        shown: list[Any] = []
        region_ready = self.dock.session.region_ready
        region_ready.connect(shown.append)  # after the dock itself, which shows them
        start = time.perf_counter()
        self.move_slider()
        wait(lambda: shown)
        QApplication.processEvents()
        seconds = time.perf_counter() - start
        region_ready.disconnect(shown.append)
        assert shown[-1].identity == self.dock.session.identity
        self.idle()
        return seconds

    def slide_whole(self) -> float:
        """The same until all layers show the whole result."""
        return self.shown_after(self.move_slider)

    def move_slider(self) -> None:
        slider = self.dock.crf_panel.sliders["theta_beta"][0].slider
        slider.setValue(300 + (slider.value() + 37) % 400)

    def load(self) -> float:
        """Load the embedded model again."""
        old, start = self.dock.session.model, time.perf_counter()
        self.dock.model_choice.load("voc-compact")
        wait(lambda: self.dock.session.model is not old)
        self.idle()
        return time.perf_counter() - start

    def prepare_strokes(self) -> None:
        """Two classes, painted with live mode off."""
        self.dock.annotate()
        self.layer = self.dock.annotating.layer
        self.layer.data[100:110, 200:280] = 2
        self.layer.data[20:30, 20:120] = 1
        self.layer.refresh()
        self.column = 40
        self.idle()

    def start_live(self) -> float:
        """Tick live mode; the network's maps were computed as Annotate opened."""
        return self.shown_after(lambda: self.dock.annotate_panel.live.setChecked(True))

    def stroke(self) -> float:
        """One more stroke, somewhere else each time."""
        self.column += 40
        return self.shown_after(lambda: self.layer.paint((400, self.column), 2))

    def cancel_segmenting(self) -> float:
        """Press Segment, and Cancel a moment later."""
        layer = self.viewer.layers["astronaut"]
        layer.data = np.roll(layer.data, 1, axis=1)
        self.dock.source_panel.segment.click()
        settle(0.15)
        return self.cancel()

    def cancel_training(self, stage: str) -> float:
        """Start a training and cancel it in the middle of a stage."""
        self.dock.train()
        wait(lambda: f"{stage} stage" in self.dock.train_panel.progress.text())
        settle(0.3)
        return self.cancel()

    def train(self) -> float:
        """Train to the end, the comparison of the models and its layers included."""
        start = time.perf_counter()
        self.dock.train()
        wait(lambda: self.dock.learning.on_trial)
        self.idle()
        return time.perf_counter() - start

    def cancel(self) -> float:
        """Seconds from Cancel until nothing runs any more."""
        start = time.perf_counter()
        self.dock.status_panel.cancel.click()
        wait(lambda: not self.dock.runner.is_busy())
        return time.perf_counter() - start

    def idle(self) -> None:
        """Wait until nothing runs and no timer waits."""
        dock = self.dock
        parts = (dock.segmenting, dock.annotating, dock.training)
        wait(lambda: not dock.runner.is_busy() and not any(p.is_waiting for p in parts))


def wait(condition: Callable[[], Any], timeout: float = 600) -> None:
    """Let the window work until the condition holds."""
    end = time.perf_counter() + timeout
    while not condition():
        assert time.perf_counter() < end, "nothing happened in time"
        QApplication.processEvents()
        time.sleep(0.001)


def settle(seconds: float) -> None:
    """Let the window work for a while."""
    end = time.perf_counter() + seconds
    wait(lambda: time.perf_counter() > end)


def main() -> int:
    """Measure, print the table and write it; 2 where there is no display."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, help="folder for widget.json and widget.md")
    parser.add_argument("--quick", action="store_true", help="few repeats")
    options = parser.parse_args()
    if sys.platform.startswith("linux") and not os.environ.get("DISPLAY"):
        print("no display; xvfb-run makes one", file=sys.stderr)
        return 2
    annotating.AUTOSAVE_FOLDER = Path(tempfile.mkdtemp())
    kept = {"model": "voc-compact", "device": "auto", "live": False}
    preferences.recall = lambda name: kept[name]
    preferences.remember = lambda name, value: kept.__setitem__(name, value)
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")  # Windows has none
    machine = f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"
    threads = f"{torch.get_num_threads()} threads, load {load:.1f} before"
    told = f"{machine}, {threads}; 512×512, 21 classes; gaps: at most {1000 * LONGEST_GAP:.0f} ms"
    print(f"{told}\n", flush=True)
    bench = Bench(2 if options.quick else 5)
    bench.run()
    values = {"machine": machine, "load": load, "times": bench.times, "gaps": bench.gaps}
    print(f"\n{json.dumps(values)}")
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        table = "\n".join([told, "", *bench.rows, ""])
        (options.out / "widget.md").write_text(table, encoding="utf-8")
        (options.out / "widget.json").write_text(json.dumps(values, indent=1) + "\n")
    bench.viewer.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
