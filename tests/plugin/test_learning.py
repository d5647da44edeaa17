"""Annotate, autosave, live mode and training in a real viewer."""

from __future__ import annotations

import json
import threading

import numpy as np
import pytest
from qtpy.QtCore import Qt
from qtpy.QtGui import QShortcut

from napari_deepcrf.plugin import annotating, commands
from napari_deepcrf.session import live


@pytest.fixture(autouse=True)
def few_small_steps(shorten_recipe):
    unary = {"iterations": 12, "batch_size": 2}
    shorten_recipe("scribbles", unary=unary, joint={"iterations": 6}, crop=33)


@pytest.fixture
def app(open_app, photo, monkeypatch, tmp_path):
    monkeypatch.setattr(annotating, "AUTOSAVE_FOLDER", tmp_path / "scribbles")
    monkeypatch.setattr(annotating, "SAVE_AFTER_MS", 20)
    app = open_app(photo)
    app.dock.annotate()
    app.idle()
    return app


def stroke(app, label, rows, columns):
    """Paint with napari's brush along a line, as mouse events end up doing."""
    layer = app.dock.annotating.layer
    layer.selected_label = label
    with layer.block_history():
        for row in range(*rows, 2):
            for column in range(*columns, 2):
                layer.paint((row, column), label)


def two_strokes(app):
    stroke(app, 1, (2, 8), (5, 70))
    stroke(app, 3, (26, 36), (30, 52))


def test_annotate_makes_a_layer_ready_to_paint(app):
    layer = app.dock.annotating.layer
    assert layer.name == "photo [scribbles]"
    assert layer.data.shape == (61, 83)
    assert layer.mode == "paint"
    assert app.viewer.layers.selection.active is layer
    app.dock.annotate()
    assert app.dock.annotating.layer is layer
    shortcuts = {s.key().toString(): s for s in app.dock.findChildren(QShortcut)}
    shortcuts["Shift+3"].activated.emit()
    assert layer.selected_label == 3
    assert layer.get_status((0, 0))["value"].startswith("0")


def test_classes_are_edited_and_shown_on_the_layer(app):
    panel, classes = app.dock.annotate_panel, app.dock.learning.classes
    assert classes.names == ("background", "cat", "dog", "person")
    panel.add.click()
    panel.classes.item(4).setText("lizard")
    assert classes.names[4] == "lizard"
    assert app.dock.annotating.layer.selected_label == 5
    panel.classes.item(1).setText("dog")
    assert classes.names[1] == "cat"
    assert panel.classes.item(1).text() == "cat"
    assert "twice" in app.dock.status_panel.text.text()
    layer = app.dock.annotating.layer
    assert list(layer.features["class"]) == list(classes.names)
    panel.reset.click()
    assert classes.names == ("background", "object")


def test_scribbles_survive_a_crash(app, open_app, photo, wait_until):
    two_strokes(app)
    painted = app.dock.annotating.layer.data.copy()
    wait_until(lambda: list(annotating.AUTOSAVE_FOLDER.glob("*.npz")))
    app.idle()
    again = open_app(photo)  # the first viewer is never asked to save anything
    again.dock.annotate()
    again.idle()
    np.testing.assert_array_equal(again.dock.annotating.layer.data, painted)
    assert "back" in again.dock.annotate_panel.note.text()


def stored():
    """What the autosave folder holds: the one file's labels, names and colours."""
    (path,) = annotating.AUTOSAVE_FOLDER.glob("*.npz")
    with np.load(path) as file:
        return file["scribbles"], json.loads(str(file["classes"])), file["colours"].tolist()


@pytest.mark.parametrize("how", ["close", "choose another layer", "remove the layer"])
def test_a_last_stroke_is_saved_though_the_timer_waits(app, photo, wait_until, how):
    layer, annotating_ = app.dock.annotating.layer, app.dock.annotating
    other = app.viewer.add_labels(np.full(photo.shape[:2], 2, np.uint8), name="mine")
    annotating_._save_timer.setInterval(600_000 if how == "close" else 300)
    two_strokes(app)
    painted = layer.data.copy()
    assert annotating_.is_waiting
    assert not list(annotating.AUTOSAVE_FOLDER.glob("*.npz"))
    if how == "close":
        app.dock._cleanup.close()
    else:
        if how == "remove the layer":
            app.viewer.layers.remove(layer)
        app.dock.annotate_panel.layer_chosen.emit(other)
        app.idle()
    np.testing.assert_array_equal(stored()[0], painted)


def test_only_the_plugins_own_layer_is_saved_as_an_images_scribbles(app, photo, settle):
    mine = app.dock.annotating.layer
    two_strokes(app)
    app.idle()
    painted = mine.data.copy()
    copy = type(mine)(painted * 0 + 2, name="copy", metadata=dict(mine.metadata))
    app.viewer.add_layer(copy)
    app.dock.annotate_panel.layer_chosen.emit(copy)
    stroke(app, 3, (2, 8), (5, 70))
    copy.refresh()
    settle(0.1)
    app.idle()
    np.testing.assert_array_equal(stored()[0], painted)
    mine.data[:] = 0  # unlike another layer, the emptied one is forgotten
    app.dock.annotate_panel.layer_chosen.emit(mine)
    mine.refresh()
    app.idle()
    assert not list(annotating.AUTOSAVE_FOLDER.glob("*.npz"))


def test_names_and_colours_come_back_with_the_scribbles(app, open_app, photo):
    two_strokes(app)
    classes = app.dock.learning.classes
    classes.edit(1, name="lizard", colour=(1, 2, 3))
    app.idle()
    assert stored()[1][1] == "lizard"
    again = open_app(photo)
    again.dock.annotate()
    again.idle()
    assert tuple(again.dock.learning.classes) == tuple(classes)
    assert classes.colours[1] == (1, 2, 3)


def test_a_chosen_colour_is_that_of_the_class_everywhere(app):
    colour = (12, 200, 34)
    app.segment()
    dock, classes = app.dock, app.dock.learning.classes
    seen = [app.layer("labels"), app.layer("history")]
    default = [layer.get_color(3) for layer in seen]
    classes.edit(2, colour=colour)
    for layer, before in zip(seen, default, strict=True):
        np.testing.assert_allclose(layer.get_color(3)[:3], before[:3])  # label 3 is the fourth
        np.testing.assert_allclose(layer.get_color(2)[:3], np.array(colour) / 255)
    np.testing.assert_allclose(dock.annotating.layer.get_color(3)[:3], np.array(colour) / 255)
    image = dock.view_panel.classes.itemIcon(2).pixmap(12, 12).toImage()
    np.testing.assert_allclose(image.pixelColor(6, 6).getRgb()[:3], colour, atol=8)
    app.viewer.layers.remove(seen[1])
    app.segment()  # layers made later have it, too
    np.testing.assert_allclose(app.layer("history").get_color(2)[:3], np.array(colour) / 255)


def test_live_mode_follows_strokes_and_undo(app):
    stroke(app, 1, (2, 8), (5, 70))
    app.dock.annotate_panel.live.setChecked(True)
    app.idle()
    ready = app.dock.learning._features  # computed while the next class is being painted
    assert ready is not None
    app.after(lambda: stroke(app, 3, (26, 36), (30, 52)))
    assert app.dock.learning._features is ready
    app.dock.annotate_panel.live.setChecked(False)
    result = app.after(lambda: app.dock.annotate_panel.live.setChecked(True))
    assert result.labels[4, 30] == 0
    assert result.labels[30, 40] == 2
    assert app.dock.session.fresh
    before = result.identity
    result = app.after(lambda: stroke(app, 2, (50, 56), (5, 70)))
    assert result.identity != before
    assert result.labels[53, 30] == 1
    undone = app.after(app.dock.annotating.layer.undo)
    assert (undone.labels == 1).sum() == 0
    app.dock.annotate_panel.live.setChecked(False)
    assert not app.dock.session.fresh
    assert app.dock.status_panel.badge.text() == "● out of date"
    app.after(lambda: app.dock.annotate_panel.live.setChecked(True))
    assert app.dock.session.fresh


def test_a_stroke_waits_for_the_features_that_are_under_way(app, photo, monkeypatch, wait_until):
    entered, opened, compute = threading.Event(), threading.Event(), live.compute_features
    calls = []

    def gated(*args):
        calls.append(args)
        entered.set()
        assert opened.wait(300)
        return compute(*args)

    monkeypatch.setattr(live, "compute_features", gated)
    app.viewer.layers["photo"].data = photo[::-1].copy()
    app.dock.annotate()
    wait_until(entered.is_set)
    two_strokes(app)
    app.dock.annotate_panel.live.setChecked(True)
    assert app.dock.runner.is_busy("live")
    app.after(opened.set)
    assert len(calls) == 1
    assert app.dock.session.fresh


def test_annotating_stops_no_segmentation(app, photo):
    app.viewer.layers["photo"].data = photo[::-1].copy()

    def segment_and_annotate():
        app.dock.source_panel.segment.click()
        app.dock.annotate()

    app.after(segment_and_annotate)
    assert app.dock.session.fresh


def test_train_keep_and_revert(app, wait_until):
    two_strokes(app)
    session, panel = app.dock.session, app.dock.train_panel
    old = session.model
    app.dock.train()
    wait_until(lambda: app.dock.learning.on_trial)
    app.idle()
    assert session.model is not old
    assert session.fresh
    assert len(panel._loss[0]) == 18
    assert panel._loss[0] == sorted(panel._loss[0])
    assert not panel.verdict.isHidden()
    unary, joint = (panel._iou[stage][1] for stage in ("unary", "joint"))
    assert unary
    assert joint
    upright, level = panel.iou._marks  # figure 4: the best unary beside the joint curve
    assert (upright.angle, level.angle) == (90, 0)
    assert level.value() == max(unary)
    app.after(commands.revert)
    assert session.model is old
    assert panel.verdict.isHidden()
    assert session.fresh


def test_old_and_new_model_are_compared(app, wait_until, monkeypatch):
    monkeypatch.setattr("napari_deepcrf.session.training.PREVIEW_EVERY_S", 0.0)
    two_strokes(app)
    app.segment()
    history, panel = app.layer("history"), app.dock.train_panel
    app.dock.train()
    wait_until(lambda: "photo [training preview]" in app.viewer.layers)
    layer = app.viewer.layers["photo [training preview]"]  # hidden, until there is one
    wait_until(lambda: layer.visible)
    assert layer.data.shape == (61, 83)
    wait_until(lambda: app.dock.learning.on_trial)
    app.idle()
    number = len(app.viewer.layers)
    shown = {}
    for view, button in panel.views.items():
        button.click()
        app.idle()
        shown[view] = layer.data.copy()
        assert layer.name == f"photo [{view}]"
        assert layer.visible
        assert [name for name, other in panel.views.items() if other.isChecked()] == [view]
    np.testing.assert_array_equal(shown["changed"], shown["before"] != shown["after"])
    assert tuple(layer.features["class"]) == ("same", "changed")
    assert f"{100 * shown['changed'].mean():.1f} %" in panel.changed.text()
    np.testing.assert_array_equal(shown["after"], app.dock.session.result.labels)
    assert len(app.viewer.layers) == number  # one layer shows them all
    assert not history.visible
    panel.keep.click()
    app.idle()
    assert layer not in app.viewer.layers
    assert history.visible
    assert panel.changed.isHidden()


def test_a_removed_comparison_comes_back_when_a_view_is_asked_for(app, wait_until):
    two_strokes(app)
    app.dock.train()
    wait_until(lambda: app.dock.learning.on_trial)
    app.idle()
    app.viewer.layers.remove("photo [after]")
    app.dock.train_panel.views["before"].click()
    app.idle()
    assert app.viewer.layers["photo [before]"].visible


def test_the_image_may_go_while_the_comparison_is_shown(app, wait_until):
    two_strokes(app)
    app.dock.train()
    wait_until(lambda: "photo [after]" in app.viewer.layers)
    app.viewer.layers.remove("photo")
    app.idle()
    assert not any("[after]" in layer.name for layer in app.viewer.layers)
    assert app.dock.train_panel.changed.isHidden()
    app.dock.learning.revert()
    app.idle()


def test_pairs_of_layers_are_offered_and_ticked(app, photo):
    panel = app.dock.train_panel
    other = app.viewer.add_image(photo[::-1].copy(), name="other")
    mine = app.viewer.add_labels(np.ones(photo.shape[:2], np.uint8), name="mine")
    app.viewer.add_labels(np.ones((5, 5), np.uint8), name="of nothing here")
    items = [panel.pairs.item(k) for k in range(panel.pairs.count())]
    assert [item.text() for item in items] == ["photo ← photo [scribbles]", "other ← mine"]
    two_strokes(app)
    assert [pair.image.name for pair in app.dock.annotating.pairing.open_pairs()()] == ["photo"]
    items[1].setCheckState(Qt.CheckState.Checked)
    pairs = app.dock.annotating.pairing.open_pairs()()
    assert [pair.image.name for pair in pairs] == ["photo", "other"]
    np.testing.assert_array_equal(pairs[1].annotation, mine.data)
    app.viewer.layers.remove(other)
    assert [pair.image.name for pair in app.dock.annotating.pairing.open_pairs()()] == ["photo"]


def test_the_image_may_go_while_training(app, wait_until):
    two_strokes(app)
    app.dock.train()
    wait_until(lambda: app.dock.train_panel.steps())
    app.viewer.layers.remove("photo")
    wait_until(lambda: app.dock.learning.on_trial)
    app.idle()
    assert [layer.name for layer in app.viewer.layers] == ["photo [scribbles]"]
    app.dock.train_panel.revert.click()
    app.idle()
    assert not app.dock.learning.on_trial


@pytest.mark.parametrize("stage", ["unary", "joint"])
def test_cancel_a_training(app, wait_until, stage):
    two_strokes(app)
    session, panel = app.dock.session, app.dock.train_panel
    old = session.model
    app.dock.train()
    wait_until(lambda: f"{stage} stage" in panel.progress.text())
    app.dock.status_panel.cancel.click()
    assert not app.dock.status_panel.cancel.isEnabled()
    app.idle()
    assert session.model is old
    assert not app.dock.learning.on_trial
    assert panel.train.isEnabled()
    assert panel.progress.text() == "Nothing trained."


def test_pause_stop_and_keep_the_best(app, wait_until, settle):
    two_strokes(app)
    panel = app.dock.train_panel
    app.dock.train()
    wait_until(lambda: len(panel._loss[0]) >= 2)
    panel.pause.click()
    settle(0.3)
    paused_at = len(panel._loss[0])
    settle(0.3)
    assert len(panel._loss[0]) == paused_at
    assert panel.pause.text() == "Resume"
    commands.pause()
    wait_until(lambda: len(panel._loss[0]) > paused_at)
    commands.stop_keep_best()
    wait_until(lambda: app.dock.learning.on_trial)
    app.idle()
    assert len(panel._loss[0]) < 18
    assert "Stopped early" in panel.verdict.text()
    commands.keep()
    assert not app.dock.learning.on_trial


def test_closing_while_training(app, wait_until):
    two_strokes(app)
    app.dock.train()
    wait_until(lambda: app.dock.train_panel._loss[0])
    runner = app.dock.runner
    app.viewer.close()
    wait_until(lambda: not runner.jobs)


def test_nothing_painted_is_one_line(app):
    app.dock.train()
    assert app.dock.status_panel.text.text().startswith("annotations: expected")


def test_models_are_saved_and_dropped_on_the_viewer(app, tmp_path, wait_until):
    path = tmp_path / "mine.safetensors"
    app.dock.training.save(path)
    wait_until(path.exists)
    app.idle()
    old = app.dock.session.model
    app.viewer.open(str(path), plugin="napari-deepcrf")
    wait_until(lambda: app.dock.session.model is not old)
    app.idle()
    assert app.dock.session.model_name == str(path)
    assert app.dock.source_panel.model.currentText() == "mine.safetensors"
