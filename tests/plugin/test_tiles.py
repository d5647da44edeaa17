"""An image that the memory does not hold: its labels in tiles, from a layer to the disk."""

from __future__ import annotations

import threading

import dask.array as da
import numpy as np
import pytest
import zarr

from napari_deepcrf.inference import Predictor, label_pyramid, memory
from napari_deepcrf.inference.tiled_image import TiledImage
from napari_deepcrf.session import tiles
from napari_deepcrf.session.batch import with_settings

NAME = "photo [labels in tiles]"


@pytest.fixture
def places(monkeypatch, tmp_path):
    """Small tiles, two resolutions; where labels of images from nowhere go."""
    monkeypatch.setattr(memory, "DEFAULT_TILE", 32)
    monkeypatch.setattr(label_pyramid, "SMALLEST", 16)
    return tmp_path / "labels of images from nowhere"


@pytest.fixture
def gate(monkeypatch):
    """Lets so many tiles through."""
    gate = threading.Semaphore(0)
    labels = TiledImage._labels

    def gated(image, *args):
        assert gate.acquire(timeout=60)
        return labels(image, *args)

    monkeypatch.setattr(TiledImage, "_labels", gated)
    yield gate
    gate.release(100)


def expected(app, image):
    model = with_settings(app.dock.session.model, app.dock.session.settings)
    return Predictor(model, device="cpu").labels(image)


def stored(folder):
    (place,) = folder.glob("*.ome.zarr")
    return zarr.open_group(place, mode="r")["0"][:]


def run(app):
    app.dock.batch_panel.tiles.run.click()
    app.idle()
    return app.viewer.layers[NAME]


def test_an_image_too_large_for_segment_is_offered_tiles(open_app, photo, places, monkeypatch):
    app = open_app(photo, scale=(2, 3), translate=(5, 7))
    panel = app.dock.batch_panel.tiles
    with monkeypatch.context() as small:
        small.setattr(memory, "available", lambda: 1000)
        app.dock.segmenting.segment()
        whole = app.dock.status_panel.text.toolTip() or app.dock.status_panel.text.text()
        app.dock.source_panel.segment.click()
    app.idle()
    said = app.dock.status_panel.text.toolTip() or app.dock.status_panel.text.text()
    assert whole.startswith("image: photo as a whole takes about")
    assert said == f"{whole}: press “Segment in tiles” for the labels alone"
    assert app.dock.session.result is None
    assert app.dock.tabs.tabText(app.dock.tabs.currentIndex()) == "Batch"
    layer = run(app)
    np.testing.assert_array_equal(stored(places), expected(app, photo))
    np.testing.assert_array_equal(np.asarray(layer.data[0]), stored(places))
    np.testing.assert_allclose(layer.scale, (2, 3))
    np.testing.assert_allclose(layer.translate, (5, 7))
    assert layer.multiscale
    assert list(layer.features["class"]) == list(app.dock.session.class_names)
    assert panel.note.text().startswith(f"Labels written to {places}")
    assert app.dock.image_choice.layer is app.viewer.layers["photo"]


def test_a_cancelled_run_goes_on_from_its_tiles(open_app, photo, places, gate, wait_until):
    app = open_app(photo)
    status = app.dock.status_panel
    gate.release(2)
    app.dock.batch_panel.tiles.run.click()
    wait_until(lambda: status.bar.value() >= 2 and "tiles of 32" in status.text.text())
    assert not app.dock.batch_panel.tiles.run.isEnabled()
    status.cancel.click()
    gate.release()  # too late: the tile under way is dropped
    app.idle()
    layer = app.viewer.layers[NAME]
    assert len(next(places.glob("*.run/tiles.txt")).read_text().splitlines()) == 2
    begun = []
    app.dock.runner.started.connect(begun.append)
    gate.release(100)
    assert run(app) is layer
    assert len(begun) == 1
    np.testing.assert_array_equal(stored(places), expected(app, photo))
    np.testing.assert_array_equal(np.asarray(layer.data[0]), stored(places))


def test_other_settings_and_other_pixels_have_their_own_place(open_app, photo, places):
    app = open_app(photo)
    layer = run(app)
    before = np.array(layer.data[0])
    app.dock.session.change_settings(iterations=1)
    run(app)
    app.viewer.layers["photo"].data[3, 4] ^= 255  # in place: nobody is told
    run(app)
    assert len(list(places.glob("*.ome.zarr"))) == 3
    np.testing.assert_array_equal(np.asarray(layer.data[0]), before)


@pytest.mark.parametrize("change", ["data", "image", "labels"])
def test_what_it_works_on_goes(open_app, photo, places, gate, wait_until, change):
    app = open_app(photo)
    app.dock.batch_panel.tiles.run.click()
    wait_until(lambda: NAME in app.viewer.layers)
    if change == "data":
        app.viewer.layers["photo"].data = photo[::-1].copy()
    else:
        app.viewer.layers.remove("photo" if change == "image" else NAME)
    gate.release(100)
    app.idle()
    assert not stored(places).any()
    assert app.dock.status_panel.text.text() in ("Ready", "Cancelled")


def test_pyramids_and_channels_are_read_as_they_are_needed(open_app, photo, places, monkeypatch):
    monkeypatch.setattr(tiles, "HELD_PIXELS", 1000)  # the finest stays on the disk
    lazy = da.from_array(photo, chunks=(20, 30, 3))
    app = open_app()
    app.viewer.add_image([lazy, lazy[::2, ::2]], name="photo", multiscale=True, rgb=True)
    layer = run(app)
    assert isinstance(layer.data[0], zarr.Array)
    np.testing.assert_array_equal(np.asarray(layer.data[0]), expected(app, photo))
    app.viewer.layers.clear()
    channels = np.moveaxis(photo[..., :2], -1, 0)
    axes = {"axis_labels": ("c", "y", "x"), "scale": (1, 2, 3), "rotate": 10}
    app.viewer.add_image(channels, name="photo", rgb=False, **axes)
    layer = run(app)
    assert layer.ndim == 2
    image = app.viewer.layers["photo"]
    np.testing.assert_allclose(
        layer.data_to_world((5, 7)), np.asarray(image.data_to_world((0, 5, 7)))[1:]
    )
    assert np.asarray(layer.data[0]).shape == photo.shape[:2]


def test_labels_go_beside_the_image(open_app, photo, places, tmp_path):
    folder = tmp_path / "slides"
    zarr.create_array(folder / "a.zarr", data=photo[..., 0], chunks=(32, 32))
    app = open_app()
    app.viewer.open(folder / "a.zarr", plugin="napari", name="photo")
    assert app.dock.batch_panel.tiles.out.text() == str(folder)
    run(app)
    assert stored(folder).shape == photo.shape[:2]
    assert not places.exists()


def test_a_stack_has_planes_and_no_tiles(open_app, photo):
    app = open_app(photo[None].repeat(3, 0))
    panel = app.dock.batch_panel
    app.dock.show_tab("Batch")
    assert panel.tiles.isHidden()
    assert not panel.stack_group.isHidden()
    app.dock.tiling.segment()
    assert app.dock.status_panel.text.text().endswith("single plane for tiles, got a stack")
    app.viewer.add_image(photo, name="single")
    assert not panel.tiles.isHidden()
    assert panel.stack_group.isHidden()


def test_labels_in_tiles_are_out_of_date_until_they_are_made_anew(open_app, photo, places):
    app = open_app(photo)
    before = run(app)
    app.dock.session.change_settings(iterations=2)
    assert before.name == f"{NAME} (out of date)"
    now = run(app)
    assert now is not before
    assert now.name == NAME
    app.dock.session.back_to_learned()
    app.dock.session.change_settings(iterations=3)
    assert before.name == NAME
    assert now.name.startswith(f"{NAME} (out of date)")  # napari numbers equal names
