"""Runs over folders: resumed by content, stopped by no image, and nothing of others replaced."""

import csv
import errno
import json
import os
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from napari_deepcrf.batch import records
from napari_deepcrf.batch.formats import FORMATS
from napari_deepcrf.batch.run import BatchOptions, ImageDone, segment_files
from napari_deepcrf.data.image_files import read_image
from napari_deepcrf.inference import Predictor


def names(done):
    return [event.image.name for event in done if not event.skipped]


@pytest.mark.parametrize("kind", FORMATS)
def test_results_are_the_predictors_labels(kind, run, model, photos, tmp_path, files_in):
    done, failed = run(photos, tmp_path / "out", kind=kind)
    assert not failed
    for event, photo in zip(done, photos, strict=True):
        labels = Predictor(model).segment(read_image(photo)).labels
        expected = FORMATS[kind].encode(labels, model.class_names, str(photo))
        suffix = FORMATS[kind].suffix
        assert event.result == tmp_path / "out" / f"{photo.stem}{suffix}"
        if "" in expected:
            assert event.result.read_bytes() == expected[""]
        else:
            assert files_in(event.result) == expected
    assert all(event.skipped for event in run(photos, tmp_path / "out", kind=kind)[0])
    assert not list((tmp_path / "out").rglob("*.part"))


def test_finished_images_are_told_by_content(run, photos, other_model, tmp_path, write_image):
    out = tmp_path / "out"
    run(photos[:2], out)
    assert names(run(photos, out)[0]) == ["2.png", "3.png"]
    # other bytes under the same name; the same bytes at another time and place
    write_image(photos[0], 10)
    os.utime(photos[1])
    moved = photos[2].rename(tmp_path / "2.png")
    again = [photos[0], photos[1], moved, photos[3]]
    done, failed = run(again, out)
    assert (names(done), failed) == (["0.png"], [])
    assert names(run(again, out, model=other_model)[0]) == ["0.png", "1.png", "2.png", "3.png"]
    # a result that was lost
    (out / "3.png").unlink()
    assert names(run(again, out, model=other_model)[0]) == ["3.png"]


def test_a_run_that_was_cut_short_goes_on(run, model, photos, tmp_path, files_in):
    out = tmp_path / "out"
    with closing(segment_files(photos, out, model, BatchOptions())) as events:
        next(events)
        next(events)
    assert len(files_in(out)) == 3  # two results and the table
    done, _ = run(photos, out)
    assert names(done) == ["2.png", "3.png"]
    assert len(done) == 4


def test_a_result_written_without_its_record_is_done_again(
    run, photos, tmp_path, monkeypatch, write_image
):
    """A crash between record and result leaves a record of what is not there yet."""
    out = tmp_path / "out"
    run(photos, out)
    write_image(photos[0], 10)
    with monkeypatch.context() as patch:
        patch.setattr(records, "_write_folder", None)
        patch.setattr(records, "atomic_write", _fails_for(out / "0.png", errno.EIO))
        _, failed = run(photos, out)
    assert len(failed) == 1
    done, failed = run(photos, out)
    assert (names(done), failed) == (["0.png"], [])


def _fails_for(path, number):
    from napari_deepcrf.atomic import atomic_write

    def write(target):
        if Path(target) == path:
            raise OSError(number, os.strerror(number), str(path))
        return atomic_write(target)

    return write


def test_what_a_killed_process_left_is_removed(run, photos, tmp_path):
    out = tmp_path / "out"
    run(photos[:1], out)
    old = [out / ".0.png.abcd_123.part", out / ".deepcrf" / ".0.png.json.abcd_123.part"]
    kept = [out / ".1.png.abcd_123.part", out / ".notes.part", out / ".draft.abcd_123.part"]
    for path in (*old, *kept):
        path.touch()
    for path in (*old, *kept[1:]):  # the first of these is being written
        os.utime(path, (0, 0))
    run(photos[1:2], out)
    assert not any(path.exists() for path in old)
    assert all(path.exists() for path in kept)


def test_images_of_all_kinds_and_bad_ones(run, tmp_path, write_image):
    good = [
        write_image(tmp_path / f"{mode}{suffix}", 0, mode)
        for mode, suffix in (
            ("L", ".png"),
            ("RGBA", ".png"),
            ("P", ".bmp"),
            ("1", ".png"),
            ("CMYK", ".jpg"),
            ("LA", ".png"),
            ("I;16", ".png"),
            ("F", ".tiff"),
        )
    ]
    tall = tmp_path / "tall.png"
    Image.new("RGB", (9, 300)).save(tall)
    bad = [tmp_path / name for name in ("empty.png", "text.jpg", "cut.png", "missing.png")]
    bad[0].touch()
    bad[1].write_text("no image")
    bad[2].write_bytes(good[0].read_bytes()[:200])
    tiny, folder = tmp_path / "tiny.png", tmp_path / "folder.png"
    Image.new("RGB", (3, 3)).save(tiny)
    folder.mkdir()
    done, failed = run([*bad, tiny, folder, *good, tall], tmp_path / "out")
    assert [event.image for event in done] == [*good, tall]
    assert done[-1].size == (300, 9)
    assert [event.image for event in failed] == [*bad, tiny, folder]
    for event in failed:
        assert event.reason.startswith(f"{event.image}: ")
        assert "\n" not in event.reason
    assert {p.suffix for p in (tmp_path / "out").iterdir() if p.is_file()} == {".png", ".csv"}


def test_equal_stems_in_different_folders_do_not_meet(run, tmp_path, write_image):
    photos = [write_image(tmp_path / folder / "x.png", n) for n, folder in enumerate("ab")]
    done, failed = run(photos, tmp_path / "out")
    assert not failed
    assert [event.result for event in done] == [tmp_path / "out/a/x.png", tmp_path / "out/b/x.png"]


def test_equal_stems_in_two_runs_do_not_meet_either(run, tmp_path, write_image, files_in):
    first, second = (write_image(tmp_path / folder / "x.png", n) for n, folder in enumerate("ab"))
    out = tmp_path / "out"
    run([first], out)
    before = files_in(out)
    done, (failure,) = run([second], out)
    assert not done
    assert failure.reason == f"{second}: {out / 'x.png'}: is the result of {first}, and stays"
    assert files_in(out) == before


@pytest.mark.parametrize("kind", ["png", "ome-zarr"])
def test_what_others_put_at_a_results_place_stays(kind, run, photos, tmp_path, write_image):
    out = tmp_path / "out"
    run(photos[:1], out, kind=kind)
    place = out / f"{{}}{FORMATS[kind].suffix}"
    edited, foreign = (Path(str(place).format(n)) for n in (0, 1))
    if kind == "ome-zarr":
        (foreign / "0").mkdir(parents=True)
        edited, foreign = edited / "notes.txt", foreign / "0" / "data"
    edited.write_bytes(b"corrected by hand")
    foreign.write_bytes(b"somebody's")
    write_image(photos[0], 10)
    done, failed = run(photos, out, kind=kind)
    assert names(done) == ["2.png", "3.png"]
    assert [event.image for event in failed] == photos[:2]
    assert all("which stays" in event.reason for event in failed)
    assert edited.read_bytes() == b"corrected by hand"
    assert foreign.read_bytes() == b"somebody's"
    done, failed = run(photos, out, kind=kind, overwrite=True)
    assert (names(done), failed) == (["0.png", "1.png"], [])


def test_results_never_replace_images(run, photos, files_in):
    before = files_in(photos[0].parent)
    with pytest.raises(ValueError, match=r"^out: .* would overwrite the image "):
        run(photos, photos[0].parent)
    assert files_in(photos[0].parent) == before


def test_the_table_lists_all_results_of_the_folder(run, model, photos, tmp_path, write_image):
    out = tmp_path / "out"
    run(photos[:2], out)
    run([photos[2], write_image(tmp_path / "with, comma.png", 9)], out)
    with (out / "summary.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["labels"] for row in rows] == ["0.png", "1.png", "2.png", "with, comma.png"]
    for row in rows:
        assert (row["height"], row["width"]) == ("23", "31")
        with Image.open(out / row["labels"]) as image:
            areas = np.bincount(np.asarray(image).ravel(), minlength=3).tolist()
        assert [int(row[name]) for name in model.class_names] == areas
        assert Path(row["image"]).is_file()


def test_a_table_of_the_users_stays(run, photos, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "summary.csv").write_text("mine\n")
    done, (failure,) = run(photos, out)
    assert len(done) == 4
    assert "summary.csv: expected no file or an earlier summary" in failure.reason
    assert (out / "summary.csv").read_text() == "mine\n"


def test_a_damaged_record_protects_its_result(run, photos, tmp_path):
    out = tmp_path / "out"
    run(photos, out)
    (out / ".deepcrf" / "0.png.json").write_text('{"image": ')
    (out / ".deepcrf" / "1.png.json").write_text(json.dumps({"image": 1, "size": None}))
    done, failed = run(photos, out)
    assert (names(done), [event.image for event in failed]) == ([], photos[:2])


def test_an_out_that_is_a_file(run, photos, tmp_path):
    file = tmp_path / "file"
    file.write_bytes(b"kept")
    with pytest.raises(OSError, match=r"^out: expected a folder for the results, got a file "):
        run(photos, file)
    with pytest.raises(OSError, match=r"^out: .* cannot be written to: Not a directory"):
        run(photos, file / "below")
    assert file.read_bytes() == b"kept"


def test_an_image_that_needs_too_much_memory_stops_no_other(run, photos, tmp_path, monkeypatch):
    labels = Predictor.labels

    def fail_once(self, image, **options):
        monkeypatch.setattr(Predictor, "labels", labels)
        raise MemoryError

    monkeypatch.setattr(Predictor, "labels", fail_once)
    done, (failure,) = run(photos, tmp_path / "out")
    assert len(done) == 3
    assert failure.reason == f"{photos[0]}: MemoryError"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_a_full_disk_stops_the_run_and_keeps_what_is_done(
    number, run, photos, tmp_path, monkeypatch, files_in
):
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(records, "atomic_write", _fails_for(out / "2.png", number))
        with pytest.raises(OSError, match=rf"^{out}/2.png: .*; what is finished is kept, "):
            run(photos, out)
    assert set(files_in(out)) == {"0.png", "1.png", "summary.csv"}
    assert names(run(photos, out)[0]) == ["2.png", "3.png"]


def test_a_limit_of_memory_reaches_the_predictor(run, photos, tmp_path, monkeypatch):
    given = []
    labels = Predictor.labels

    def spy(self, image, *, memory):
        given.append(memory)
        return labels(self, image)

    monkeypatch.setattr(Predictor, "labels", spy)
    run(photos[:1], tmp_path / "limited", memory=3 << 30)
    run(photos[:1], tmp_path / "free")
    assert given == [3 << 30, None]


def test_options_are_checked():
    with pytest.raises(ValueError, match=r"^format: "):
        BatchOptions(kind="bmp")


def test_the_worker_is_this_process(run, photos, tmp_path):
    done, _ = run(photos[:1], tmp_path / "out")
    assert isinstance(done[0], ImageDone)
    assert done[0].worker is None
