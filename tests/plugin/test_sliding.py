"""Large images: the visible part while a slider is held, the whole after it."""

from __future__ import annotations

import numpy as np
import pytest

from napari_deepcrf.plugin import sliding


@pytest.fixture
def app(open_app, photo, settle, monkeypatch):
    monkeypatch.setattr(sliding, "LARGE", 1)
    monkeypatch.setattr(sliding, "WHOLE_AFTER_MS", 60)
    app = open_app(photo, show=True, scale=(2, 2), translate=(10, -4))
    app.segment()
    app.viewer.reset_view()  # the dock has taken of the window's width
    settle(0.2)
    return app


def part_of(app):
    name = "photo [visible part]"
    return next((layer for layer in app.viewer.layers if layer.name == name), None)


def shows_part(app):
    return part_of(app).visible


def test_the_part_comes_while_sliding_and_the_whole_afterwards(app, wait_until):
    results, session = [], app.dock.session
    session.result_changed.connect(results.append)
    history = app.layer("history")
    slider = app.dock.crf_panel.sliders["theta_alpha"][0].slider
    part = part_of(app)
    assert not part.visible  # it came with the result: while one slides is no time to add a layer
    slider.setSliderDown(True)
    for position in (420, 520, 620):
        slider.setSliderPosition(position)
        wait_until(lambda: part.visible and not app.dock.runner.is_busy())
    assert results == []
    assert not session.fresh
    wait_until(lambda: part.visible and not history.visible)
    corner = np.asarray(part.data_to_world((-0.5, -0.5)))
    np.testing.assert_allclose(corner, (10 - 1, -4 - 1))  # the image's own corner
    assert part.data.shape == session.result.labels.shape
    slider.setSliderDown(False)
    app.idle()
    (whole,) = results
    assert whole.identity == session.identity
    assert session.fresh
    assert not part.visible
    assert history.visible
    slider.setSliderDown(True)
    slider.setSliderPosition(400)
    wait_until(lambda: part.visible)  # the same layer serves the next slide
    assert part in app.viewer.layers
    assert not history.visible
    slider.setSliderDown(False)
    app.idle()
    assert history.visible
    assert not part.visible


def test_only_what_is_seen_is_refined(app, wait_until, settle):
    app.viewer.scene.camera.zoom *= 4
    settle(0.2)
    slider = app.dock.crf_panel.sliders["theta_alpha"][0].slider
    slider.setSliderDown(True)
    slider.setSliderPosition(500)
    wait_until(lambda: shows_part(app))
    height, width = part_of(app).data.shape
    assert 8 <= height < 61 or 8 <= width < 83
    app.viewer.layers.remove(part_of(app))  # the user's right
    slider.setSliderDown(False)
    app.idle()
    assert app.dock.session.fresh
    slider.setSliderDown(True)
    slider.setSliderPosition(600)
    wait_until(lambda: part_of(app) is not None and shows_part(app))  # made anew
    slider.setSliderDown(False)
    app.idle()


def test_another_image_ends_it(app, photo, wait_until):
    slider = app.dock.crf_panel.sliders["theta_alpha"][0].slider
    slider.setSliderDown(True)
    slider.setSliderPosition(500)
    wait_until(lambda: shows_part(app))
    app.viewer.layers["photo"].data = photo[::-1].copy()
    assert not shows_part(app)
    assert app.layer("history").visible
    slider.setSliderDown(False)
    app.idle()
    assert not app.dock.session.fresh
    app.viewer.add_image(photo[:30].copy(), name="other")
    wait_until(lambda: part_of(app) is None)  # it is of the first image
