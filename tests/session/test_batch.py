import numpy as np
import pytest
from PIL import Image

from napari_deepcrf.inference import Predictor
from napari_deepcrf.session import ImageSource
from napari_deepcrf.session.batch import PlaneDone, segment_folder, segment_planes


@pytest.fixture
def pictures():
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (21 + n, 33, 3), dtype=np.uint8) for n in range(3)]


def test_every_plane_gets_the_predictors_labels(session, model, pictures):
    sources = [ImageSource(n, str(n), p.shape[:2], lambda p=p: p) for n, p in enumerate(pictures)]
    events = segment_planes(sources, model, "cpu", session.settings)
    done = [event for event in events if isinstance(event, PlaneDone)]
    assert [event.number for event in done] == [0, 1, 2]
    for event, picture in zip(done, pictures, strict=True):
        expected = Predictor(model, device="cpu").segment(picture).labels
        np.testing.assert_array_equal(event.labels, expected)


def test_a_folder_is_written_as_palette_images(session, model, pictures, tmp_path):
    for n, picture in enumerate(pictures):
        Image.fromarray(picture).save(tmp_path / f"{n}.png")
    (tmp_path / "notes.txt").write_text("no image")
    out = tmp_path / "out"
    list(segment_folder(tmp_path, out, model, "cpu", session.settings))
    assert sorted(p.name for p in out.glob("*.png")) == ["0.png", "1.png", "2.png"]
    with Image.open(out / "1.png") as written:
        assert written.mode == "P"
        expected = Predictor(model, device="cpu").segment(pictures[1]).labels
        np.testing.assert_array_equal(np.asarray(written), expected)


def test_a_folder_goes_on_and_names_a_bad_image_at_the_end(session, model, pictures, tmp_path):
    Image.fromarray(pictures[0]).save(tmp_path / "0.png")
    out = tmp_path / "out"
    settings = session.settings
    list(segment_folder(tmp_path, out, model, "cpu", settings))
    first = (out / "0.png").stat().st_mtime_ns
    (tmp_path / "1.png").write_bytes(b"no image")
    Image.fromarray(pictures[2]).save(tmp_path / "2.png")
    with pytest.raises(ValueError, match=r"^1 of 3 images failed, .*1\.png: expected an image"):
        list(segment_folder(tmp_path, out, model, "cpu", settings))
    assert (out / "2.png").exists()
    assert (out / "0.png").stat().st_mtime_ns == first
    (tmp_path / "1.png").unlink()
    list(segment_folder(tmp_path, out, model, "cpu", settings.with_(w_bilateral=0.5)))
    assert (out / "0.png").stat().st_mtime_ns != first


def test_progress_counts_images(session, model, pictures, tmp_path):
    for n, picture in enumerate(pictures):
        Image.fromarray(picture).save(tmp_path / f"{n}.png")
    events = list(segment_folder(tmp_path, tmp_path / "out", model, "cpu", session.settings))
    counts = [(event.done, event.total) for event in events]
    assert counts == [(0, 3), (1, 3), (2, 3), (3, 3), (3, 3)]


def test_a_folder_without_images_is_named(session, model, tmp_path):
    with pytest.raises(ValueError, match=r"^folder: expected images"):
        list(segment_folder(tmp_path, tmp_path / "out", model, "cpu", session.settings))
