"""An image in tiles without a window: opened before any work, gone on with, complete at last."""

from __future__ import annotations

import numpy as np
import pytest
import zarr

from napari_deepcrf.inference import Predictor, label_pyramid, memory
from napari_deepcrf.session import Progress, tiles
from napari_deepcrf.session.batch import with_settings
from napari_deepcrf.session.tiles import (
    TilesOpened,
    TilesWritten,
    memory_problem,
    segment_in_tiles,
)


@pytest.fixture
def run(session, monkeypatch, tmp_path):
    """Steps of a run in tiles of 32 pixels, looked at after each of them."""
    monkeypatch.setattr(memory, "DEFAULT_TILE", 32)
    monkeypatch.setattr(label_pyramid, "SMALLEST", 16)
    monkeypatch.setattr(tiles, "LEAST_WAIT", 0.0)
    monkeypatch.setattr(tiles, "WAIT_SHARE", 0)

    def run(pixels, *, view=1024):
        name, model, settings = "a b/c", session.model, session.settings
        return segment_in_tiles(lambda: pixels, name, tmp_path, model, "cpu", settings, view)

    return run


def test_labels_fill_from_before_the_first_tile_to_the_last(run, session, image, tmp_path):
    pixels = image.read()
    events = list(run(pixels))
    (opened,) = (event for event in events if isinstance(event, TilesOpened))
    assert sum(isinstance(event, TilesWritten) for event in events) >= 2
    assert [level.shape for level in opened.levels] == [(41, 53), (21, 27)]
    shown = np.asarray(opened.levels[0])
    np.testing.assert_array_equal(shown, zarr.open_group(opened.place, mode="r")["0"][:])
    whole = Predictor(with_settings(session.model, session.settings), device="cpu")
    assert np.mean(shown != whole.labels(pixels)) < 0.01  # at the tiles' borders
    assert opened.place.parent == tmp_path
    assert opened.place.name.startswith("a_b_c-")
    assert events[-1] == Progress(f"Labels written to {opened.place}", 1, 1)


def test_a_run_that_was_stopped_goes_on_and_another_lies_elsewhere(run, image, tmp_path):
    pixels = image.read()
    steps = run(pixels)
    opened = next(event for event in steps if isinstance(event, TilesOpened))
    assert not np.asarray(opened.levels[0]).any()
    steps.close()
    (again,) = (event for event in run(pixels) if isinstance(event, TilesOpened))
    assert again.place == opened.place
    (other,) = (event for event in run(pixels, view=40) if isinstance(event, TilesOpened))
    assert other.place != opened.place
    assert {place.name for place in tmp_path.iterdir()} >= {opened.place.name, other.place.name}


def test_a_lazy_image_is_known_by_a_sample(run, image):
    import dask.array as da

    pixels = image.read()
    opened = [
        next(event for event in run(given) if isinstance(event, TilesOpened)).place.name
        for given in (da.from_array(pixels, chunks=20), da.from_array(pixels[::-1], chunks=20))
    ]
    assert opened[0] != opened[1]


def test_an_image_that_the_memory_does_not_hold_is_told(session, monkeypatch):
    assert memory_problem(session) == ""
    monkeypatch.setattr(memory, "available", lambda: 1000)
    assert memory_problem(session).startswith("image: a as a whole takes about")
    session.choose_image(None)
    assert memory_problem(session) == ""
