"""The demo off screen, as `make demo` runs it where there is no display."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from napari_deepcrf.models import zoo
from napari_deepcrf.plugin import demo

PICTURES = ("labels.png", "overlay.png", "window.png")


@pytest.mark.gui
def test_the_demo_writes_its_pictures(tmp_path):
    if not zoo.model_path("voc-compact").is_file():
        pytest.skip("the embedded model is not in this checkout")
    command = [sys.executable, "-m", demo.__name__, "--offscreen", "--out", str(tmp_path)]
    limit = 2 * demo.TIMEOUT_S  # the demo's own comes first
    result = subprocess.run(command, capture_output=True, text=True, timeout=limit, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == [str(tmp_path / name) for name in PICTURES]
    with Image.open(tmp_path / "labels.png") as labels:
        assert labels.mode == "P"
        assert labels.size == (451, 300)
        assert 8 in np.unique(np.asarray(labels))  # the photo is of a cat
    with Image.open(tmp_path / "window.png") as window:
        assert min(window.size) >= 700


def test_segmenting_at_once_loads_the_libraries_once(
    open_app, make_napari_viewer, photo, wait_until
):
    viewer = make_napari_viewer()
    viewer.add_image(photo)
    _, dock = viewer.window.add_plugin_dock_widget("napari-deepcrf", "DeepCRF")
    started = []
    dock.runner.started.connect(lambda job: started.append(job.kind))
    dock.segment_when_ready()
    wait_until(lambda: dock.session.result is not None and not dock.runner.is_busy())
    assert started.count("warm-up") == 1


def test_a_display_that_cannot_be_had_is_one_line(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(demo, "_needs_xvfb", lambda: True)
    monkeypatch.setattr(demo.shutil, "which", lambda _name: None)
    assert demo.main(["--out", str(tmp_path)]) == 1
    assert capsys.readouterr().err.count("\n") == 1
