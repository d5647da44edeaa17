"""What the plugin puts into napari's own window: keys, menus, the command palette, activity."""

from __future__ import annotations

import threading

import pytest
from napari._app_model import get_app_model
from napari._qt.widgets.qt_progress_bar import QtLabeledProgressBar
from npe2 import PluginManager
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QApplication

from napari_deepcrf.plugin import annotating, commands
from napari_deepcrf.session import Job, Progress, jobs
from napari_deepcrf.training.events import StepDone


@pytest.fixture
def held(monkeypatch):
    """Holds a segmentation at half of its way until it is set."""
    go_on, original = threading.Event(), jobs.segment_image

    def segment_image(*args):
        yield Progress("Half way", 3, 6)
        assert go_on.wait(300)
        yield from original(*args)

    monkeypatch.setattr(jobs, "segment_image", segment_image)
    yield go_on
    go_on.set()


def bars(app):
    """The titles of the progress bars in napari's activity dock, and how far each is."""
    dialog = app.viewer.window._qt_window._activity_dialog
    found = dialog.findChildren(QtLabeledProgressBar)
    return {bar.description_label.text(): bar.qt_progress_bar.value() for bar in found}


def test_what_takes_long_shows_in_the_activity_dock_and_goes(open_app, photo, held, wait_until):
    app = open_app(photo)
    assert bars(app) == {}
    app.dock.source_panel.segment.click()
    wait_until(lambda: bars(app) == {"Segmenting photo: ": 3})
    held.set()
    app.idle()
    wait_until(lambda: bars(app) == {})


def test_steps_of_a_training_move_the_bars(open_app, wait_until):
    app, go_on = open_app(), threading.Event()

    def steps():
        yield StepDone("joint", 2, 6, 0.5, 0.1, 0.01, ("photo",))
        assert go_on.wait(300)

    app.dock.runner.submit(Job("train", 0, "Training", steps))
    wait_until(lambda: bars(app) == {"Training: ": 2})
    panel = app.dock.status_panel
    assert panel.text.text() == "Training, joint stage"
    assert (panel.bar.value(), panel.bar.maximum()) == (2, 6)
    go_on.set()
    app.idle()


def test_a_cancelled_job_leaves_the_activity_dock(open_app, photo, held, wait_until):
    app = open_app(photo)
    app.dock.source_panel.segment.click()
    wait_until(lambda: bars(app))
    app.dock.status_panel.cancel.click()
    held.set()
    app.idle()
    wait_until(lambda: bars(app) == {})


def test_shift_and_a_digit_pick_a_class_wherever_the_focus_is(
    open_app, photo, qtbot, monkeypatch, tmp_path
):
    monkeypatch.setattr(annotating, "AUTOSAVE_FOLDER", tmp_path)
    app = open_app(photo, show=True)
    app.dock.annotate()
    app.idle()
    window = app.dock.window()
    window.activateWindow()
    qtbot.waitUntil(lambda: QApplication.activeWindow() is window)
    canvas = app.viewer.window._qt_viewer.canvas.native
    for widget, digit in ((canvas, 2), (app.dock.annotate_panel.classes, 4), (canvas, 1)):
        widget.setFocus()
        qtbot.keyClick(widget, Qt.Key(Qt.Key.Key_0 + digit), Qt.KeyboardModifier.ShiftModifier)
        assert app.dock.annotate_panel.classes.currentRow() == digit - 1
        assert app.dock.annotating.layer.selected_label == digit
    assert not app.dock.annotating.layer.data.any()


def texts(menu):
    """The texts of a menu's actions and of its submenus'."""
    for action in menu.actions():
        if action.menu() is not None:
            yield from texts(action.menu())
        else:
            yield action.text()


def test_every_command_is_in_the_palette_and_in_a_menu(open_app, photo):
    app = open_app(photo)
    manifest = PluginManager.instance().get_manifest("napari-deepcrf").contributions
    ours = {c.id: c.title for c in manifest.commands if commands.__name__ in c.python_name}
    assert len(ours) >= 16
    menus = get_app_model().menus
    palette = menus.get_menu(menus.COMMAND_PALETTE_ID)
    assert {item.command.id for item in palette if hasattr(item, "command")} >= set(ours)
    window = app.viewer.window
    in_menus = {text for menu in (window.layers_menu, window.file_menu) for text in texts(menu)}
    for title in ours.values():
        assert any(text.startswith(title) for text in in_menus), title
