"""The Batch tab on a whole stack: labels that come plane by plane, or by one CRF over all."""

from __future__ import annotations

import threading

import dask.array as da
import numpy as np
import pytest
import zarr

from napari_deepcrf.inference import Predictor
from napari_deepcrf.plugin.images import plane_of
from napari_deepcrf.plugin.stack_reader import open_stack
from napari_deepcrf.session.batch import with_settings

NAME = "photo [all planes]"


@pytest.fixture
def stack(photo):
    """(4, 61, 83) of planes that differ."""
    return np.stack([photo[..., 0], photo[::-1, :, 1], photo[:, ::-1, 2], photo[::-1, ::-1, 0]])


class Gate:
    """Lets one plane after the other through, each when it is told to."""

    def __init__(self, monkeypatch):
        self.entered, self._passes = 0, threading.Semaphore(0)
        labels = Predictor.labels

        def gated(predictor, pixels):
            self.entered += 1
            assert self._passes.acquire(timeout=30)
            return labels(predictor, pixels)

        monkeypatch.setattr(Predictor, "labels", gated)

    def let(self, planes):
        for _ in range(planes):
            self._passes.release()


@pytest.fixture
def gate(monkeypatch):
    gate = Gate(monkeypatch)
    yield gate
    gate.let(100)


@pytest.fixture
def begin(open_app, stack, gate, wait_until):
    """The app with a batch that waits at its first plane, and the layer."""

    def begin(step=0, **layer_kwargs):
        app = open_app(stack, rgb=False, **layer_kwargs)
        app.viewer.dims.set_current_step(0, step)
        app.dock.batch_panel.stack.click()
        wait_until(lambda: NAME in app.viewer.layers and gate.entered == 1)
        return app, app.viewer.layers[NAME]

    return begin


def filled(layer):
    """Which planes of the layer hold labels."""
    return [number for number, plane in enumerate(layer.data) if plane.any()]


def test_the_plane_in_view_comes_first_and_shows_at_once(begin, stack, gate, wait_until):
    app, layer = begin(step=2, scale=(5, 2, 1), translate=(1, 2, 3))
    assert layer.data.shape == stack.shape
    np.testing.assert_allclose(layer.scale, (5, 2, 1))
    np.testing.assert_allclose(layer.translate, (1, 2, 3))
    assert filled(layer) == []
    assert not layer.editable
    assert not app.dock.batch_panel.stack.isEnabled()
    assert app.dock.image_choice.layer is app.viewer.layers["photo"]
    gate.let(1)
    wait_until(lambda: gate.entered == 2 and "1 of 4" in app.dock.status_panel.text.text())
    assert filled(layer) == [2]
    view = layer._slice.image.raw
    np.testing.assert_array_equal(view, layer.data[2])
    app.viewer.dims.set_current_step(0, 0)
    gate.let(2)  # the one that had begun, and the one in view now
    wait_until(lambda: gate.entered == 4)
    assert 0 in filled(layer)
    gate.let(1)
    app.idle()
    assert layer.editable
    assert app.dock.batch_panel.stack.isEnabled()
    app.viewer.dims.set_current_step(0, 1)
    gate.let(9)
    np.testing.assert_array_equal(app.segment().labels, layer.data[1])


def test_cancel_keeps_the_planes_that_are_done(begin, gate, wait_until, settle):
    app, layer = begin()
    gate.let(1)
    wait_until(lambda: gate.entered == 2)
    app.dock.status_panel.cancel.click()
    gate.let(9)  # too late: the plane under way is dropped
    app.idle()
    settle(0.1)
    assert gate.entered == 2
    assert filled(layer) == [0]
    assert layer.editable
    assert NAME in app.viewer.layers
    assert app.dock.batch_panel.stack.isEnabled()


@pytest.mark.parametrize("change", [None, "settings"])
def test_a_batch_after_a_cancelled_one_goes_on_from_its_planes(begin, gate, change, wait_until):
    app, layer = begin()
    gate.let(1)
    wait_until(lambda: gate.entered == 2)
    app.dock.status_panel.cancel.click()
    gate.let(1)
    app.idle()
    layer.data[0, :5] = 2  # corrected by hand
    if change == "settings":
        app.dock.session.change_settings(iterations=2)
    gate.let(9)
    app.dock.batch_panel.stack.click()
    app.idle()
    again = app.viewer.layers[-1]
    assert again is not layer
    assert filled(again) == [0, 1, 2, 3]
    assert gate.entered == (5 if change is None else 6)
    assert (again.data[0, :5] == 2).all() == (change is None)
    assert filled(layer) == [0]


@pytest.mark.parametrize("change", ["data", "image", "labels"])
def test_what_it_works_on_goes(begin, gate, stack, change, wait_until):
    app, layer = begin()
    gate.let(1)
    wait_until(lambda: gate.entered == 2)
    if change == "data":
        app.viewer.layers["photo"].data = stack[:, ::-1]
    else:
        app.viewer.layers.remove("photo" if change == "image" else NAME)
    gate.let(9)
    app.idle()
    assert gate.entered == 2
    assert filled(layer) == [0]


def test_a_plane_that_is_no_image_is_named(open_app, stack):
    broken = stack.astype(np.float32)
    broken[1, 3, 4] = np.nan
    app = open_app(broken, rgb=False, contrast_limits=(0, 255))
    app.viewer.dims.set_current_step(0, 0)
    app.dock.batch_panel.stack.click()
    app.idle()
    assert app.dock.status_panel.text.text().startswith("plane 1: image: expected finite")
    assert filled(app.viewer.layers[NAME]) == [0]


def test_one_crf_over_all_planes(open_app, stack):
    app = open_app(stack, rgb=False)
    panel = app.dock.batch_panel
    panel.planes_width.setValue(1.5)
    assert panel.note.text() == "One CRF over all planes takes about 0.01 GB."
    panel.stack.click()
    app.idle()
    layer = app.viewer.layers[NAME]
    assert layer.data.shape == stack.shape
    assert layer.editable
    panel.planes_width.setValue(0)
    panel.stack.click()
    app.idle()
    alone = app.viewer.layers[f"{NAME} [1]"].data
    assert 0 < (layer.data != alone).mean() < 0.5


@pytest.mark.parametrize("lazy", [False, True])
def test_channels_of_a_stack_are_one_image(open_app, lazy):
    channels = np.random.default_rng(0).integers(0, 4000, (2, 5, 23, 31), dtype=np.uint16)
    data = da.from_array(channels, chunks=(1, 2, 9, 31)) if lazy else channels
    app = open_app(data, rgb=False, axis_labels=("z", "c", "y", "x"), contrast_limits=(0, 4000))
    image = app.viewer.layers["photo"]
    opened = open_stack(image)()
    assert opened.shape == (2, 1, 23, 31, 3)
    plane = plane_of(image, (1, 4, 0, 0), app.dock.image_choice.revisions)
    np.testing.assert_array_equal(opened[1, 0].compute(), plane.source.read())
    app.dock.batch_panel.stack.click()
    app.idle()
    layer = app.viewer.layers[NAME]
    assert layer.data.shape == channels.shape
    np.testing.assert_array_equal(layer.data[:, 0], layer.data[:, 4])
    assert layer.data.any()


def test_four_axes_have_no_3d_crf(open_app, stack):
    app = open_app(stack.reshape(2, 2, 61, 83), rgb=False)
    assert app.dock.batch_panel.stack.isEnabled()
    assert not app.dock.batch_panel.planes_width.isEnabled()


def test_a_zarr_image_is_segmented_in_tiles(open_app, photo, tmp_path):
    zarr.create_array(tmp_path / "slide.zarr", data=photo, chunks=(32, 32, 3))
    app = open_app()
    app.dock.batching.segment_folder(tmp_path / "slide.zarr")
    app.idle()
    panel = app.dock.batch_panel
    assert "1 label images written" in panel.folder_note.text()
    labels = zarr.open_group(tmp_path / "labels" / "slide.ome.zarr", mode="r")["0"][:]
    expected = with_settings(app.dock.session.model, app.dock.session.settings)
    np.testing.assert_array_equal(labels, Predictor(expected, device="cpu").labels(photo))


def test_labels_of_other_settings_pixels_or_models_are_out_of_date(begin, gate, wait_until):
    app, layer = begin()
    gate.let(100)
    wait_until(lambda: not app.dock.runner.is_busy("batch"))
    session, image = app.dock.session, app.viewer.layers["photo"]
    assert (layer.name, layer.opacity) == (NAME, 0.6)
    session.change_settings(theta_alpha=7)
    assert (layer.name, layer.opacity) == (f"{NAME} (out of date)", 0.3)
    session.back_to_learned()
    assert (layer.name, layer.opacity) == (NAME, 0.6)
    session.choose_model("another", session.model)
    assert layer.name == NAME  # the same one by another name
    image.data = image.data[::-1].copy()
    assert layer.name == f"{NAME} (out of date)"
    session.back_to_learned()
    app.viewer.layers.remove(image)
    assert layer.name == f"{NAME} (out of date)"
    assert app.viewer.layers == [layer]
