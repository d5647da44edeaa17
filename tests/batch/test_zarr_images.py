"""Zarr images of a run: in tiles, resumed by tile, nothing of others replaced."""

import csv
import errno
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import zarr

from napari_deepcrf.batch.images import find_images, result_names
from napari_deepcrf.batch.run import BatchOptions, ImageDone, segment_files
from napari_deepcrf.batch.zarr_images import TilesDone
from napari_deepcrf.inference import Predictor
from napari_deepcrf.inference.label_pyramid import LabelPyramid
from napari_deepcrf.inference.lazy_image import LazyImage
from napari_deepcrf.inference.tiled_image import TiledImage


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (75, 101, 3), dtype=np.uint8)


@pytest.fixture
def slide(pixels, tmp_path: Path) -> Path:
    """An OME-Zarr image with its channels first."""
    path = tmp_path / "slides" / "slide.ome.zarr"
    axes = [{"name": name} for name in "cyx"]
    multiscales = [{"axes": axes, "datasets": [{"path": "0"}]}]
    group = zarr.create_group(path, attributes={"ome": {"multiscales": multiscales}})
    group.create_array("0", data=np.moveaxis(pixels, 2, 0).copy(), chunks=(3, 40, 40))
    return path


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
    """Twelve tiles, one after the other."""
    monkeypatch.setattr("napari_deepcrf.inference.memory.DEFAULT_TILE", 32)
    monkeypatch.setattr("napari_deepcrf.inference.memory.os.cpu_count", lambda: 1)


def _labels(place: Path) -> np.ndarray:
    return np.asarray(zarr.open_group(place, mode="r")["0"])


def _areas(out: Path) -> list[dict[str, str]]:
    with (out / "summary.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("kind", ["png", "ome-zarr"])
def test_a_zarr_image_stands_beside_files(kind, run, model, photos, slide, pixels, tmp_path):
    out = tmp_path / "out"
    (done, beside), failed = run([slide, photos[0]], out, kind=kind)[0][::-1], []
    assert not failed
    assert beside.image == photos[0]
    assert (done.image, done.result, done.size) == (slide, out / "slide.ome.zarr", (75, 101))
    expected = TiledImage(pixels, Predictor(model), tile=32).labels()
    np.testing.assert_array_equal(_labels(done.result), expected)
    counts = np.bincount(expected.ravel(), minlength=3).tolist()
    assert list(done.areas.values()) == counts
    row = next(row for row in _areas(out) if row["labels"] == "slide.ome.zarr")
    assert [int(row[name]) for name in model.class_names] == counts
    again, failed = run([slide, photos[0]], out, kind=kind)
    assert [event.skipped for event in again] == [True, True]
    assert not failed


def test_a_run_that_was_cut_short_goes_on_from_its_tiles(model, run, slide, tmp_path, monkeypatch):
    out = tmp_path / "out"
    with closing(segment_files([slide], out, model, BatchOptions())) as events:
        for event in events:
            assert isinstance(event, TilesDone)
            assert event.plan.startswith("tiles of 32×32 pixels, 1 at once, about 0.")
            if event.total > 12 and event.done >= 6:
                break
    finished = len((out / "slide.ome.zarr.run" / "tiles.txt").read_text().split())
    assert 3 <= finished < 12
    assert not _areas(out)
    monkeypatch.setattr(TiledImage, "scores", None)  # those of the first run are used
    events = list(segment_files([slide], out, model, BatchOptions()))
    assert (events[0].done, events[0].total) == (finished, 12)
    (done,) = (event for event in events if isinstance(event, ImageDone))
    assert not done.skipped
    monkeypatch.undo()
    expected = TiledImage(slide, Predictor(model), tile=32).labels()
    np.testing.assert_array_equal(_labels(done.result), expected)


def test_another_model_makes_a_result_anew_but_an_edited_one_stays(
    run, slide, other_model, tmp_path
):
    out = tmp_path / "out"
    run([slide], out)
    (done,), failed = run([slide], out, model=other_model)
    assert (done.skipped, failed) == (False, [])
    expected = TiledImage(slide, Predictor(other_model), tile=32).labels()
    np.testing.assert_array_equal(_labels(done.result), expected)
    zarr.open_group(done.result, mode="r+")["0"][:9] = 1
    done, (failure,) = run([slide], out)
    assert not done
    assert "got another or an edited one, which stays" in failure.reason
    (done,), failed = run([slide], out, overwrite=True)
    assert (done.skipped, failed) == (False, [])


@pytest.mark.parametrize("finished", [False, True])
def test_an_edit_of_one_pixel_is_seen(finished, run, model, slide, pixels, tmp_path):
    """The pixel lies in none of the windows that tell arrays in memory apart."""
    pixels = np.tile(pixels, (4, 1, 1))[:, :41]
    array = zarr.create_array(tmp_path / "big.zarr", data=pixels, chunks=(50, 41, 3))
    before = LazyImage.of(tmp_path / "big.zarr").fingerprint()
    out, big = tmp_path / "out", [tmp_path / "big.zarr"]
    with closing(segment_files(big, out, model, BatchOptions())) as events:
        next(iter(events)) if not finished else list(events)
    array[35, 20] = 255 - array[35, 20]
    assert LazyImage.of(tmp_path / "big.zarr").fingerprint() == before
    done, failed = run(big, out)
    if finished:
        assert [event.skipped for event in done] == [False]
    else:  # no tiles of two images in one result
        assert "is a run with another image" in failed[0].reason


def test_a_users_folder_is_replaced_on_demand_only(run, slide, tmp_path):
    theirs = tmp_path / "out" / "slide.ome.zarr" / "notes.txt"
    theirs.parent.mkdir(parents=True)
    theirs.write_text("theirs")
    _, (failure,) = run([slide], tmp_path / "out")
    assert failure.reason.startswith(f"{slide}: out: {theirs.parent} is there already")
    assert theirs.read_text() == "theirs"
    (done,), _ = run([slide], tmp_path / "out", overwrite=True)
    assert not theirs.exists()
    assert _labels(done.result).shape == (75, 101)


@pytest.mark.parametrize("overwrite", [False, True])
def test_the_image_itself_is_never_replaced(overwrite, run, slide, pixels):
    with pytest.raises(ValueError, match=r"^out: .* would overwrite the image "):
        run([slide], slide.parent, overwrite=overwrite)
    stored = np.asarray(zarr.open_group(slide, mode="r")["0"])
    np.testing.assert_array_equal(np.moveaxis(stored, 0, 2), pixels)


def test_bad_zarr_images_stop_nothing(run, slide, tmp_path):
    empty, broken, stack = (tmp_path / f"{name}.zarr" for name in ("empty", "broken", "stack"))
    empty.mkdir()
    zarr.create_array(broken, data=np.zeros((64, 64, 3), np.uint8), chunks=(16, 16, 3))
    zarr.create_array(stack, data=np.zeros((5, 64, 64), np.uint8))
    (broken / "c" / "1" / "1").mkdir(parents=True, exist_ok=True)
    (broken / "c" / "1" / "1" / "0").write_bytes(b"broken")
    bad = [empty, broken, stack]
    done, failed = run([*bad, slide], tmp_path / "out")
    assert [event.image for event in done] == [slide]
    assert [event.image for event in failed] == bad
    for event, reason in zip(
        failed,
        ("image: expected a zarr array or an OME-Zarr image", "image: reading rows", "image: exp"),
        strict=True,
    ):
        assert event.reason.startswith(f"{event.image}: {reason}")
        assert "\n" not in event.reason


def test_a_full_disk_keeps_the_finished_tiles(run, slide, tmp_path, monkeypatch):
    out, write, room = tmp_path / "out", LabelPyramid.write, [4]

    def full(self, tile, labels):
        room[0] -= 1
        if room[0] < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(self, tile, labels)

    with monkeypatch.context() as patch:
        patch.setattr(LabelPyramid, "write", full)
        with pytest.raises(OSError, match=rf"^{out}/slide.ome.zarr: No space left .* is kept"):
            run([slide], out)
    assert len((out / "slide.ome.zarr.run" / "tiles.txt").read_text().split()) == 4
    (done,), failed = run([slide], out)
    assert (done.skipped, failed) == (False, [])


def test_zarr_images_are_found_and_named(run, slide, photos, tmp_path):
    assert find_images([slide]) == [slide]
    assert find_images([slide.parent]) == [slide]
    assert result_names([slide, photos[0]]) == ["slide", "0"]
    # Labels beside images are no images.
    run([slide], photos[0].parent)
    assert find_images([photos[0].parent]) == photos


def test_a_view_is_checked(run, slide, tmp_path):
    with pytest.raises(ValueError, match="view: expected at least 8 pixels, got 3"):
        run([slide], tmp_path / "out", view=3)
