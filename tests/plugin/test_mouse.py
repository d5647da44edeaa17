"""Strokes by the mouse on the canvas, as a person paints them, and what follows from them."""

from __future__ import annotations

import numpy as np
import pytest
from qtpy.QtCore import QPoint, Qt
from qtpy.QtTest import QTest

from napari_deepcrf.plugin import annotating


@pytest.fixture
def app(open_app, photo, settle, monkeypatch, tmp_path):
    monkeypatch.setattr(annotating, "AUTOSAVE_FOLDER", tmp_path)
    app = open_app(photo, show=True)
    app.dock.annotate()
    app.idle()
    settle(0.2)
    return app


def drag(app, settle, start, end, steps=6):
    """Press the left button on a pixel (row, column), move to another, release."""
    canvas = app.viewer.window._qt_viewer.canvas.native
    camera = app.viewer.scene.camera

    def place(fraction):
        row, column = (a + fraction * (b - a) for a, b in zip(start, end, strict=True))
        x = canvas.width() / 2 + (column - camera.center[2]) * camera.zoom
        y = canvas.height() / 2 + (row - camera.center[1]) * camera.zoom
        return QPoint(round(x), round(y))

    left, none = Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier
    QTest.mouseMove(canvas, place(0))
    settle(0.02)
    QTest.mousePress(canvas, left, none, place(0))
    for step in range(1, steps + 1):
        settle(0.02)
        QTest.mouseMove(canvas, place(step / steps))
    settle(0.02)
    QTest.mouseRelease(canvas, left, none, place(1))


def test_strokes_of_the_mouse_are_followed_and_undone(app, settle):
    layer = app.dock.annotating.layer
    app.dock.annotating.pick(0)
    drag(app, settle, (5, 5), (5, 70))
    assert layer.data[5, 30] == 1
    assert (layer.data[15:] == 0).all()
    app.dock.annotate_panel.live.setChecked(True)
    app.idle()
    assert app.dock.session.result is None
    assert "two or more classes" in app.dock.annotate_panel.live_note.text()
    app.dock.annotating.pick(2)
    result = app.after(lambda: drag(app, settle, (32, 30), (32, 52)))
    assert layer.data[32, 40] == 3
    assert result.labels[32, 40] == 2
    assert result.labels[5, 30] == 0
    assert app.dock.session.fresh
    assert app.dock.status_panel.badge.text() == "● up to date"
    layer.undo()
    app.idle()
    assert layer.data[32, 40] == 0
    assert not app.dock.session.fresh
    assert app.dock.status_panel.badge.text() == "● out of date"
    redone = app.after(layer.redo)
    np.testing.assert_array_equal(redone.labels, result.labels)
    assert app.dock.session.fresh
