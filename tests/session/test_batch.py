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
    assert sorted(p.name for p in out.iterdir()) == ["0.png", "1.png", "2.png"]
    with Image.open(out / "1.png") as written:
        assert written.mode == "P"
        expected = Predictor(model, device="cpu").segment(pictures[1]).labels
        np.testing.assert_array_equal(np.asarray(written), expected)


def test_a_folder_without_images_is_named(session, model, tmp_path):
    with pytest.raises(ValueError, match=r"^folder: expected images"):
        list(segment_folder(tmp_path, tmp_path / "out", model, "cpu", session.settings))
