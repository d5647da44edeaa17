import threading

import dask.array as da
import numpy as np
import pytest
from PIL import Image

from napari_deepcrf.inference import Predictor
from napari_deepcrf.inference.volume import segment_volume
from napari_deepcrf.interrupt import Interrupted, interruptible
from napari_deepcrf.session import Progress
from napari_deepcrf.session.batch import (
    PlaneDone,
    StackOpened,
    segment_folder,
    segment_stack,
    segment_stack_as_volume,
    with_settings,
)


@pytest.fixture
def pictures():
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (21 + n, 33, 3), dtype=np.uint8) for n in range(3)]


def test_every_plane_gets_the_predictors_labels(session, model, pictures):
    stack = np.stack([picture[:21] for picture in pictures])
    events = list(segment_stack(lambda: stack, model, "cpu", session.settings, (1,)))
    (opened,) = (event for event in events if isinstance(event, StackOpened))
    done = [event.index for event in events if isinstance(event, PlaneDone)]
    assert done[0] == (1,)
    assert sorted(done) == [(0,), (1,), (2,)]
    assert events[-1] == Progress("Segmented 3 of 3 planes", 3, 3)
    predictor = Predictor(model, device="cpu")
    for plane, labels in zip(stack, opened.labels, strict=True):
        np.testing.assert_array_equal(labels, predictor.segment(plane).labels)


def test_a_stack_ends_in_the_midst_of_a_plane_when_asked_to(session, model, pictures, monkeypatch):
    stack = np.stack([picture[:21] for picture in pictures])
    flag, labels = threading.Event(), Predictor.labels

    def stopped_by_now(self, image):
        found = labels(self, image)
        flag.set()
        return found

    monkeypatch.setattr(Predictor, "labels", stopped_by_now)
    steps = segment_stack(lambda: stack, model, "cpu", session.settings, (2,))
    next(steps)
    opened = next(steps)
    opened.labels[:] = 77
    with pytest.raises(Interrupted), interruptible(flag):
        next(steps)
    assert (opened.labels == 77).all()


def test_a_stack_goes_on_from_the_planes_of_a_cancelled_run(session, model, pictures, monkeypatch):
    stack = np.stack([picture[:21] for picture in pictures])
    steps = segment_stack(lambda: stack, model, "cpu", session.settings, (1,))
    first = next(event for event in steps if isinstance(event, StackOpened))
    next(steps)
    steps.close()
    assert first.stack.num_done == 1
    again = list(
        segment_stack(lambda: stack, model, "cpu", session.settings, (1,), earlier=first.stack)
    )
    (opened,) = (event for event in again if isinstance(event, StackOpened))
    assert sorted(event.index for event in again if isinstance(event, PlaneDone)) == [(0,), (2,)]
    assert again[-1] == Progress("Segmented 3 of 3 planes", 3, 3)
    assert opened.labels is not first.labels
    whole = list(segment_stack(lambda: stack, model, "cpu", session.settings, (1,)))
    np.testing.assert_array_equal(opened.labels, whole[1].labels)


def test_a_bad_plane_is_named(session, model, pictures):
    stack = np.stack([picture[:21] / 255 for picture in pictures])
    stack[1, 0, 0] = np.nan
    with pytest.raises(ValueError, match=r"^plane 1: image: expected finite values"):
        list(segment_stack(lambda: stack, model, "cpu", session.settings, (0,)))


def test_one_crf_over_a_stack(session, model, pictures):
    stack = da.from_array(np.stack([picture[None, :21] for picture in pictures]))
    settings = session.settings.with_(theta_beta=(9.0,) * 5)  # learned on five channels
    events = list(segment_stack_as_volume(lambda: stack, model, "cpu", settings, 1.5))
    assert [event.done for event in events[1:-1]] == [0, 1, 2, 3, 4]
    expected = segment_volume(
        stack[:, 0], Predictor(with_settings(model, settings), device="cpu"), planes_width=1.5
    )
    np.testing.assert_array_equal(events[-1].labels, expected[:, None])


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
