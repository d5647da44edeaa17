"""What users do while something runs."""

from __future__ import annotations

import threading
import time
import weakref

import numpy as np
import pytest
from qtpy.QtWidgets import QApplication

from napari_deepcrf.plugin.readout import SEPARATOR
from napari_deepcrf.session import ImageSource, Progress, jobs


class Gate:
    """Holds every network pass of the session until it is opened."""

    def __init__(self, monkeypatch):
        self.entered, self.open = threading.Event(), threading.Event()
        original = jobs.segment_image

        def gated(*args):
            self.entered.set()
            yield Progress("At the gate")
            assert self.open.wait(300)
            yield from original(*args)

        monkeypatch.setattr(jobs, "segment_image", gated)


@pytest.fixture
def gate(monkeypatch):
    gate = Gate(monkeypatch)
    yield gate
    gate.open.set()


def press_segment(app, gate, wait_until):
    app.dock.source_panel.segment.click()
    wait_until(gate.entered.is_set)


def test_a_burst_of_slider_moves_gives_one_result_the_last(open_app, photo, settle):
    app = open_app(photo)
    app.segment()
    results = []
    app.dock.session.result_changed.connect(results.append)
    slider = app.dock.crf_panel.sliders["theta_alpha"][0].slider
    for position in range(300, 700, 20):
        slider.setValue(position)
        settle(0.004)
    app.idle()
    assert len(results) <= 3
    wanted = app.dock.crf_panel.sliders["theta_alpha"][0].value()
    assert results[-1].identity.settings.parameters.theta_alpha == wanted
    assert app.dock.session.fresh
    np.testing.assert_array_equal(app.layer("labels").data, results[-1].labels)
    np.testing.assert_array_equal(app.layer("history").data, results[-1].history)


def test_moves_at_once_give_one_job(open_app, photo):
    app = open_app(photo)
    app.segment()
    results, jobs_begun = [], []
    app.dock.session.result_changed.connect(results.append)
    app.dock.runner.started.connect(lambda job: jobs_begun.append(job.kind))
    slider = app.dock.crf_panel.sliders["theta_beta"][0].slider
    for position in range(300, 700, 20):
        slider.setValue(position)
    app.idle()
    assert jobs_begun.count("refine") == 1
    (result,) = results
    wanted = app.dock.crf_panel.sliders["theta_beta"][0].value()
    assert result.identity.settings.parameters.theta_beta == wanted


def test_more_updates_lengthen_the_slider_and_keep_its_end(open_app, photo):
    app = open_app(photo)
    app.segment()
    app.after(lambda: app.dock.crf_panel.iterations.setValue(6))
    axis = app.viewer.dims.ndim - 3
    assert app.layer("history").data.shape[0] == 7
    assert app.viewer.dims.current_step[axis] == 6
    app.after(lambda: app.dock.crf_panel.iterations.setValue(2))
    assert app.viewer.dims.nsteps[axis] == 3
    assert app.viewer.dims.current_step[axis] == 2


def test_cancel_leaves_everything_as_it_was(open_app, photo, gate, wait_until):
    app = open_app(photo)
    press_segment(app, gate, wait_until)
    assert app.dock.status_panel.cancel.isEnabled()
    app.dock.status_panel.cancel.click()
    assert app.dock.status_panel.text.text() == "Cancelling…"
    gate.open.set()
    app.idle()
    assert app.dock.session.result is None
    assert [layer.name for layer in app.viewer.layers] == ["photo"]
    assert app.dock.status_panel.text.text() == "Cancelled"
    app.segment()
    assert app.dock.session.fresh


@pytest.mark.parametrize("event", ["remove", "new data", "other image", "rename"])
def test_image_events_in_the_middle_of_a_run(open_app, photo, gate, wait_until, event):
    app = open_app(photo)
    image = app.viewer.layers["photo"]
    press_segment(app, gate, wait_until)
    if event == "remove":
        app.viewer.layers.remove(image)
    elif event == "new data":
        image.data = photo[::-1]
    elif event == "other image":
        app.viewer.add_image(photo[:40, :40], name="other")
    else:
        image.name = "renamed"
    gate.open.set()
    app.idle()
    if event == "rename":
        assert app.dock.session.fresh
        assert app.dock.source_panel.image.currentText() == "renamed"
    else:
        assert app.dock.session.result is None
    if event != "remove":
        app.segment()
        assert app.dock.session.fresh


def test_a_changed_result_is_named_and_faded_until_it_is_fresh(open_app, photo):
    app = open_app(photo)
    app.segment()
    history = app.layer("history")
    opacity = history.opacity
    app.viewer.layers["photo"].data = photo[::-1].copy()
    assert app.dock.status_panel.badge.text() == "● out of date"
    assert history.name.endswith("(out of date)")
    assert history.opacity == pytest.approx(opacity / 2)
    app.segment()
    assert app.layer("history") is history
    assert history.name == "photo [label history]"
    assert history.opacity == opacity
    assert app.dock.status_panel.badge.text() == "● up to date"


def test_scores_that_have_just_been_added_are_refined_on_their_image(open_app, photo):
    app = open_app(photo)
    app.viewer.add_image(photo[:30], name="of another size")
    inside = np.zeros(photo.shape[:2], np.float32)
    inside[20:45, 25:60] = 0.8
    scores = app.viewer.add_image(np.stack([1 - inside, inside]), name="forest")
    assert app.dock.image_choice.layer is scores  # the active layer
    source = app.dock.tools_panel.source
    source.setCurrentText("forest")
    result = app.after(lambda: source.activated.emit(source.currentIndex()))
    assert app.dock.source_panel.image.currentText() == "photo"
    assert result.identity.image == app.dock.image_choice.plane.source.key
    assert "photo [labels]" in app.viewer.layers


def test_objects_of_a_result_are_out_of_date_with_it(open_app, photo):
    app = open_app(photo, photo[::-1].copy())
    app.segment()
    app.dock.tools.make_objects(app.dock.session.result.largest_class, 1)
    app.idle()
    (objects,) = (layer for layer in app.viewer.layers if "objects" in layer.name)
    name, opacity = objects.name, objects.opacity
    weight = app.dock.crf_panel.sliders["w_bilateral"][0]
    app.after(lambda: weight.slider.setValue(900))
    assert app.dock.session.fresh
    assert objects.name == f"{name} (out of date)"
    assert objects.opacity == pytest.approx(opacity / 2)
    app.after(app.dock.crf_panel.learned.click)
    assert (objects.name, objects.opacity) == (name, opacity)
    image, other = app.dock.image_choice.layer, app.viewer.layers[0]
    app.dock.image_choice.choose(other)
    assert objects.name == name  # it still is what the model makes of its image
    app.viewer.layers.remove(image)
    assert objects.name == f"{name} (out of date)"


def test_removed_layers_are_made_again(open_app, photo):
    app = open_app(photo)
    app.segment()
    history, marginals = app.layer("history"), app.layer("marginals")
    app.viewer.layers.remove(marginals)
    app.segment()
    assert app.layer("history") is history
    assert app.layer("marginals") is not marginals
    assert app.layer("marginals") in app.viewer.layers
    assert len(app.viewer.layers) == 6


def test_layers_of_another_image_are_its_own(open_app, photo):
    app = open_app(photo)
    app.segment()
    first = app.layer("labels")
    before = first.data.copy()
    app.viewer.add_image(photo[10:50, 10:70], name="crop")
    app.segment()
    assert app.layer("labels") is not first
    assert app.layer("labels").name == "crop [labels]"
    assert first in app.viewer.layers
    np.testing.assert_array_equal(first.data, before)


def stale(layers):
    return [layer.name for layer in layers if layer.name.endswith("(out of date)")]


def test_results_of_two_images_are_told_apart(open_app, photo):
    app = open_app(photo)
    badge = app.dock.status_panel.badge
    first = app.segment()
    image, own = app.viewer.layers["photo"], [app.layer(role) for role in ("labels", "history")]
    opacity = own[0].opacity
    own[0].data[:4] = 3  # painted by the user
    other = app.viewer.add_image(photo[10:50, 10:70], name="crop")
    assert (badge.text(), stale(own)) == ("", [])
    app.segment()
    crops = [app.layer(role) for role in ("labels", "history")]
    assert stale(app.viewer.layers) == []
    app.dock.image_choice.choose(image)
    assert app.dock.session.result is first
    assert app.dock.session.fresh
    assert badge.text() == "● up to date"
    assert app.layer("labels") is own[0]
    assert (own[0].data[:4] == 3).all()
    app.dock.image_choice.choose(other)
    image.data = photo[::-1].copy()  # not the image chosen
    assert len(stale(own)) == 2
    assert own[0].opacity == opacity / 2
    assert stale(crops) == []
    app.after(lambda: app.dock.segmenting.change({"theta_alpha": 33}))
    assert stale(crops) == []
    app.dock.image_choice.choose(image)
    app.segment()
    assert stale(app.viewer.layers) == []
    app.dock.session.change_settings(theta_alpha=34)
    assert len(stale(own + crops)) == 4  # the model and the settings go for all
    app.dock.session.change_settings(theta_alpha=33)
    app.idle()
    assert stale(app.viewer.layers) == []
    app.viewer.layers.remove(other)
    assert len(stale(crops)) == 2


def test_widths_out_of_range_are_an_error_in_the_dock(open_app, photo):
    app = open_app(photo)
    app.segment()
    before = app.layer("labels").data.copy()
    app.dock.segmenting.change({"theta_beta": 1e-7})
    app.idle()
    assert "theta_beta" in app.dock.status_panel.text.text()
    np.testing.assert_array_equal(app.layer("labels").data, before)
    assert not app.dock.session.fresh


def test_what_pytorch_raises_is_told(open_app, photo, monkeypatch):
    def failing(*_args):
        yield Progress("Soon")
        raise RuntimeError("no kernel image is available\nsecond line")

    app = open_app(photo)
    monkeypatch.setattr(jobs, "segment_image", failing)
    app.dock.source_panel.segment.click()
    app.idle()
    assert app.dock.status_panel.text.text() == "no kernel image is available"
    assert app.dock.session.result is None


def test_closing_the_dock_in_the_middle_releases_everything(open_app, photo, gate, wait_until):
    app = open_app(photo)
    dock, runner = weakref.ref(app.dock), app.dock.runner
    bound = set(map(str, app.viewer.keymap))
    press_segment(app, gate, wait_until)
    layer = app.viewer.layers["photo"]
    app.viewer.window.remove_dock_widget(app.dock)
    app.dock.deleteLater()
    app.dock = None
    wait_until(lambda: (QApplication.sendPostedEvents(None, 52), not app.viewer.keymap)[1])
    assert "Shift+D" in bound
    gate.open.set()
    wait_until(lambda: not runner.jobs)
    layer.data = photo[::-1]
    app.viewer.add_image(photo)
    app.viewer.dims.set_current_step(0, 0)
    assert len(app.viewer.layers) == 2
    wait_until(lambda: dock() is None or not _alive(dock()))


def _alive(widget):
    try:
        widget.objectName()
    except RuntimeError:
        return False
    return True


def test_closing_the_viewer_in_the_middle_is_safe(open_app, photo, gate, wait_until):
    app = open_app(photo)
    press_segment(app, gate, wait_until)
    runner = app.dock.runner
    app.viewer.close()
    gate.open.set()
    wait_until(lambda: not runner.jobs)


def test_keys_and_sample_data(open_app, photo):
    app = open_app()
    (layer,) = app.viewer.open_sample("napari-deepcrf", "cat")
    assert layer.data.shape == (300, 451, 3)
    assert isinstance(app.dock.session.image, ImageSource)
    handler = next(v for k, v in app.viewer.keymap.items() if str(k) == "Shift+D")
    app.viewer.layers.remove(layer)
    app.viewer.add_image(photo)
    assert app.after(lambda: handler(app.viewer)).labels.shape == photo.shape[:2]


def test_what_a_resting_mouse_is_told_goes_out_of_date(open_app, photo):
    app = open_app(photo)
    app.segment()
    parts = ("layer_name", "layer_base", "source_type", "plugin")
    app.viewer.cursor.position = (3, 1, 20, 30)
    app.viewer.status = {**dict.fromkeys(parts, ""), "coordinates": "[20 30]"}
    fresh = app.viewer.status["coordinates"]
    assert fresh == f"[20 30]{SEPARATOR}{app.dock.readout.text()}"
    app.viewer.layers["photo"].data = photo[::-1].copy()
    assert app.viewer.status["coordinates"] == f"{fresh} (out of date)"


def test_a_cancelled_job_ends_what_it_began_outside_the_window(open_app, photo, wait_until):
    app = open_app(photo)
    started, ended = [], []

    def steps():
        try:
            while True:
                started.append(threading.get_ident())
                yield None
                time.sleep(0.01)
        finally:
            ended.append(threading.get_ident())

    app.dock.runner.submit(app.dock.session.job("endless", "Endless", steps))
    wait_until(lambda: started)
    app.dock.runner.cancel("endless")
    wait_until(lambda: not app.dock.runner.is_busy("endless"))
    assert ended == [started[0]]
    assert ended[0] != threading.get_ident()
