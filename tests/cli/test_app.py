"""The command as a whole: its imports, its usage errors, its smaller commands."""

import json
import subprocess
import sys

import pytest

HEAVY = ("torch", "numba", "skimage", "napari", "qtpy", "PyQt6", "scipy")


@pytest.mark.parametrize("module", ["napari_deepcrf", "napari_deepcrf.cli"])
def test_importing_loads_nothing_heavy(module: str):
    code = f"import {module}, sys; print(*[m for m in {HEAVY} if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (result.returncode, result.stdout.strip(), result.stderr) == (0, "", "")


def test_bad_input_is_one_line_and_no_traceback_in_a_real_process(tmp_path):
    command = [sys.executable, "-m", "napari_deepcrf.cli", "evaluate", "--data", str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 2
    assert result.stderr.startswith(f"error: {tmp_path}: ")
    assert len(result.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("arguments", [["nonsense"], ["segment"], ["refine", "a", "b", "--bad"]])
def test_usage_errors(command, arguments):
    result = command(*arguments)
    assert result.exit_code == 2
    assert "Usage" in result.err


def test_every_public_name_is_there():
    import napari_deepcrf as ndc

    for name in ndc.__all__:
        assert getattr(ndc, name) is not None


def test_models_lists_the_embedded_one(command):
    assert "voc-compact" in command("models").out
    assert "voc-compact" in [entry["name"] for entry in json.loads(command("models", "--json").out)]


def test_bench_times_the_parts(command, tiny_model):
    result = command("bench", "--model", tiny_model, "--repeats", 1, "--json")
    seconds = json.loads(result.out)["seconds"]
    assert set(seconds) == {"network", "lattices", "5 updates", "whole segmentation"}
    assert all(value > 0 for value in seconds.values())
