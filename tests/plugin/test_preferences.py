"""Choices that last, in napari's own settings: by a process with a folder of its own for them."""

from __future__ import annotations

import os
import subprocess
import sys

from napari_deepcrf.plugin import preferences

REMEMBER = """
from npe2 import PluginManager
from napari_deepcrf.plugin import preferences

PluginManager.instance().discover()
for name in ("model", "device", "live"):
    print(name, preferences.recall(name))
for name, value in (("model", "/models/mine.safetensors"), ("device", "cuda:1"), ("live", True)):
    preferences.remember(name, value)
    print(name, preferences.recall(name))
"""


def test_choices_are_kept_in_naparis_settings(tmp_path):
    environment = {**os.environ, "NAPARI_CONFIG": str(tmp_path / "settings.yaml")}
    process = subprocess.run(
        [sys.executable, "-c", REMEMBER],
        env=environment,
        check=True,
        capture_output=True,
        text=True,
        timeout=240,
    )
    lines = process.stdout.splitlines()
    assert lines[:3] == [f"{name} {value}" for name, value in preferences._defaults.items()]
    assert lines[3:] == ["model /models/mine.safetensors", "device cuda:1", "live True"]
    (kept,) = tmp_path.glob("napari-deepcrf*")
    assert "cuda:1" in kept.read_text()
