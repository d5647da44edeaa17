"""`napari-deepcrf segment`: labels on disk, bad images named, nothing overwritten."""

import json
from pathlib import Path

import numpy as np
import pytest

from napari_deepcrf.data.image_files import read_image
from napari_deepcrf.data.voc import read_labels
from napari_deepcrf.inference import Predictor


def test_labels_of_the_model_are_written(command, photo: Path, tiny_model: Path, tmp_path: Path):
    result = command("segment", photo, "--out", tmp_path / "new" / "results", "--model", tiny_model)
    assert (result.exit_code, result.err) == (0, "")
    expected = Predictor(tiny_model).segment(read_image(photo)).labels
    np.testing.assert_array_equal(read_labels(tmp_path / "new/results/photo.png"), expected)


def test_json_lists_what_was_done(command, photo: Path, tiny_model: Path, tmp_path: Path):
    result = command("segment", photo, "--out", tmp_path / "out", "--model", tiny_model, "--json")
    (done,) = json.loads(result.out)["done"]
    assert done["image"] == str(photo)
    assert sum(done["classes"].values()) == pytest.approx(1, abs=0.1)


def test_bad_images_are_named_and_stop_nothing(command, photo, tiny_model, tmp_path: Path):
    (tmp_path / "text.jpg").write_text("no image")
    (tmp_path / "empty.png").write_bytes(b"")
    bad = [tmp_path / "text.jpg", tmp_path / "empty.png", tmp_path / "missing.png"]
    out = tmp_path / "out"
    result = command("segment", *bad, photo, "--out", out, "--model", tiny_model)
    assert result.exit_code == 2
    lines = result.err.strip().splitlines()
    assert len(lines) == 3
    for path, line in zip(bad, lines, strict=True):
        assert line.startswith(f"error: {path}: ")
    assert [p.name for p in out.iterdir()] == ["photo.png"]


def test_two_images_of_one_name_are_refused_before_any_work(command, photo, tiny_model, tmp_path):
    twin = tmp_path / "elsewhere" / "photo.jpg"
    result = command("segment", photo, twin, "--out", tmp_path / "out", "--model", tiny_model)
    assert result.exit_code == 2
    assert "would both be written to" in result.err
    assert not (tmp_path / "out").exists()


def test_the_image_itself_is_never_overwritten(command, photo: Path, tiny_model: Path):
    before = photo.read_bytes()
    result = command("segment", photo, "--out", photo.parent, "--model", tiny_model)
    assert result.exit_code == 2
    assert "would overwrite the image" in result.err
    assert photo.read_bytes() == before


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "tiny.safetensors"), (b"\x80\x04pickle", "tiny.safetensors"), (None, "nothing")],
)
def test_a_model_that_cannot_be_loaded(command, photo, tiny_model, tmp_path, content, message):
    if content is None:
        tiny_model = tmp_path / "nothing.safetensors"
    else:
        tiny_model.write_bytes(content)
    result = command("segment", photo, "--out", tmp_path / "out", "--model", tiny_model)
    assert result.exit_code == 2
    assert len(result.err.strip().splitlines()) == 1
    assert message in result.err


def test_unknown_device(command, photo, tiny_model, tmp_path):
    result = command(
        "segment", photo, "--out", tmp_path / "out", "--model", tiny_model, "--device", "abacus"
    )
    assert result.exit_code == 2
    assert "abacus" in result.err
