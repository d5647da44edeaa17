"""`napari-deepcrf segment`: labels on disk, bad images named, nothing overwritten."""

import errno
import json
import re
from pathlib import Path

import numpy as np
import pytest
import zarr

from napari_deepcrf.data.image_files import read_image
from napari_deepcrf.data.label_files import read_labels
from napari_deepcrf.inference import Predictor


def beside_estimate(result) -> list[str]:
    """The lines on stderr after the first one, which is what the work will take."""
    first, *others = result.err.splitlines()
    assert first.startswith("memory: the largest image, 23×31 pixels, takes about 0.00 GB")
    return others


def test_labels_of_the_model_are_written(command, photo: Path, tiny_model: Path, tmp_path: Path):
    result = command("segment", photo, "--out", tmp_path / "new" / "results", "--model", tiny_model)
    assert (result.exit_code, beside_estimate(result)) == (0, [])
    expected = Predictor(tiny_model).segment(read_image(photo)).labels
    np.testing.assert_array_equal(read_labels(tmp_path / "new/results/photo.png"), expected)


def test_json_lists_what_was_done(command, photo: Path, tiny_model: Path, tmp_path: Path):
    result = command("segment", photo, "--out", tmp_path / "out", "--model", tiny_model, "--json")
    document = json.loads(result.out)
    (done,) = document["done"]
    assert (done["image"], done["skipped"], document["failed"]) == (str(photo), False, [])
    assert sum(done["classes"].values()) == pytest.approx(1, abs=0.1)
    assert Path(document["summary"]) == tmp_path / "out" / "summary.csv"


def test_bad_images_are_named_and_stop_nothing(command, photo, tiny_model, tmp_path: Path):
    (tmp_path / "text.jpg").write_text("no image")
    (tmp_path / "empty.png").write_bytes(b"")
    bad = [tmp_path / "text.jpg", tmp_path / "empty.png", tmp_path / "missing.png"]
    out = tmp_path / "out"
    result = command("segment", *bad, photo, "--out", out, "--model", tiny_model)
    assert result.exit_code == 2
    lines = beside_estimate(result)
    assert len(lines) == 3
    for path, line in zip(bad, lines, strict=True):
        assert line.startswith(f"error: {path}: ")
    assert [p.name for p in out.glob("*.png")] == ["photo.png"]
    assert "1 done, 0 done before, 3 failed" in result.out


def test_folders_are_done_once_and_in_any_format(command, photo, tiny_model, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    photo.rename(folder / "photo.png")
    out = tmp_path / "out"
    arguments = ("segment", folder, "--out", out, "--model", tiny_model, "--format")
    for kind, name in (
        ("png", "photo.png"),
        ("numpy", "photo.npy"),
        ("ome-zarr", "photo.ome.zarr"),
        ("coco-rle", "photo.coco.json"),
    ):
        assert command(*arguments, kind).exit_code == 0
        assert (out / name).exists()
    result = command(*arguments, "numpy")
    assert (result.exit_code, beside_estimate(result)) == (0, [])
    assert result.out == f"0 done, 1 done before, 0 failed; class areas: {out / 'summary.csv'}\n"


def test_a_users_file_is_replaced_on_demand_only(command, photo, tiny_model, tmp_path):
    theirs = tmp_path / "out" / "photo.png"
    theirs.parent.mkdir()
    theirs.write_bytes(b"theirs")
    arguments = ("segment", photo, "--out", theirs.parent, "--model", tiny_model)
    result = command(*arguments)
    assert result.exit_code == 2
    (error,) = beside_estimate(result)
    assert error.startswith(f"error: {photo}: {theirs}: expected no file")
    assert theirs.read_bytes() == b"theirs"
    assert command(*arguments, "--overwrite").exit_code == 0
    assert read_labels(theirs).shape == (23, 31)


def test_progress_and_time_left_without_a_terminal(
    command, photo, tiny_model, tmp_path, monkeypatch
):
    monkeypatch.setattr("napari_deepcrf.cli.segment.TELL_SECONDS", -1)
    second = tmp_path / "second.png"
    second.write_bytes(photo.read_bytes())
    result = command("segment", photo, second, "--out", tmp_path / "out", "--model", tiny_model)
    assert "1 of 2 images" in result.err
    assert re.search(r"^2 of 2 images, \d:\d\d:\d\d left$", result.err, re.MULTILINE)


def test_a_zarr_image_is_done_in_tiles(command, tiny_model, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    zarr.create_array(tmp_path / "slide.zarr", data=pixels, chunks=(16, 16, 3))
    out = tmp_path / "out"
    arguments = ("segment", tmp_path / "slide.zarr", "--out", out, "--model", tiny_model)
    result = command(*arguments, "--memory", "100GB")
    assert result.exit_code == 0
    plan = (
        re.escape(f"memory: {tmp_path / 'slide.zarr'}: tiles of 1536×1536 pixels, 1 at once, ")
        + r"about 0\.\d+ GB"
    )
    assert re.fullmatch(f"{plan}\n", result.err)
    expected = Predictor(tiny_model).labels(pixels)
    np.testing.assert_array_equal(zarr.open_group(out / "slide.ome.zarr")["0"][:], expected)
    result = command(*arguments)
    assert result.out == f"0 done, 1 done before, 0 failed; class areas: {out / 'summary.csv'}\n"
    result = command(*arguments, "--view", "16")
    assert result.exit_code == 0  # another view, another result
    assert re.match(r".*slide\.ome\.zarr: ", result.out)


def test_the_memory_needed_is_told_first(command, photo, tiny_model, tmp_path, monkeypatch):
    arguments = ("segment", photo, "--out", tmp_path / "out", "--model", tiny_model, "--memory")
    monkeypatch.setattr("napari_deepcrf.inference.memory.available", lambda: 3 * 10**9)
    result = command(*arguments[:-1])
    assert result.err.endswith("takes about 0.00 GB as a whole, of 3.00 GB, half of what is free\n")
    monkeypatch.setattr("napari_deepcrf.inference.memory.available", lambda: 1)
    result = command(*arguments[:-1])
    assert result.err.endswith("of 0.00 GB, half of what is free; it is done in tiles\n")
    result = command(*arguments, "100GB")
    assert result.exit_code == 0
    assert result.err.startswith("memory: the largest image, 23×31 pixels, takes about 0.00 GB")
    assert result.err.endswith("of 100.00 GB\n")
    result = command(*arguments, "1MB")
    assert result.exit_code == 0  # it was done before
    assert result.err.endswith("of 0.00 GB; it is done in tiles\n")
    result = command(*arguments, "1MB", "--format", "numpy")
    assert result.exit_code == 2
    assert f"error: {photo}: memory: expected at least" in result.err
    result = command(*arguments, "much")
    assert result.err == "error: memory: expected a size such as 2GB or 800MB, got 'much'\n"


def test_an_out_that_is_a_file(command, photo, tiny_model, tmp_path):
    result = command("segment", photo, "--out", tiny_model, "--model", tiny_model)
    assert result.exit_code == 2
    (error,) = beside_estimate(result)
    assert error == f"error: out: expected a folder for the results, got a file {tiny_model}"


def test_a_full_disk_is_one_line_after_the_results(
    command, photo, tiny_model, tmp_path, monkeypatch
):
    def write(path):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("napari_deepcrf.batch.records.atomic_write", write)
    missing = tmp_path / "missing.png"
    out = tmp_path / "out"
    result = command("segment", missing, photo, "--out", out, "--model", tiny_model)
    assert result.exit_code == 2
    assert beside_estimate(result) == [
        f"error: {missing}: no such image file",
        f"error: {out / 'photo.png'}: No space left on device; what is finished is kept, the same "
        "command goes on from there",
    ]


def test_an_unreachable_scheduler(command, photo, tiny_model, tmp_path, monkeypatch):
    monkeypatch.setattr("napari_deepcrf.batch.cluster.CONNECT_SECONDS", 0.3)
    arguments = ("segment", photo, "--out", tmp_path / "out", "--model", tiny_model)
    for address in ("tcp://127.0.0.1:9", "nonsense://x", "127.0.0.1:nine"):
        result = command(*arguments, "--scheduler", address)
        assert result.exit_code == 2
        assert result.err.splitlines()[0].endswith("takes about 0.00 GB as a whole on a worker")
        (error,) = beside_estimate(result)
        assert error.startswith(f"error: scheduler: {address} cannot be reached")


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
