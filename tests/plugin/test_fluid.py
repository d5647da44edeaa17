"""The window stays fluid, and closes without a trace."""

from __future__ import annotations

import ctypes
import gc
import importlib.util
import os
import sys
import threading
import time
import weakref
from pathlib import Path

import pytest
from napari.layers import Points
from qtpy import API_NAME
from qtpy.QtCore import QThreadPool, QTimer
from qtpy.QtWidgets import QApplication
from skimage import data

from napari_deepcrf.plugin.context import add_layer
from napari_deepcrf.plugin.workers import SWITCH_INTERVAL_S

PYQT6 = API_NAME == "PyQt6"
MANY_OBJECTS = 100_000
LIMIT_S = 0.2 if os.environ.get("CI") else 0.1


def load_heartbeat():
    """The class that `benchmarks/widget.py` measures with."""
    path = Path(__file__).parents[2] / "benchmarks" / "heartbeat.py"
    spec = importlib.util.spec_from_file_location("heartbeat", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Heartbeat


Heartbeat = load_heartbeat()


def check(beat):
    """Bound both; native threads, which wait uncounted, stretch gaps on a crowded machine."""
    waiting = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0  # Windows has none
    crowding = max(1.0, waiting / (os.cpu_count() or 1))
    assert beat.own < LIMIT_S
    assert beat.fed < LIMIT_S * crowding


def test_the_heartbeat_notices_work_in_the_window_and_a_kept_lock(qtbot, settle):
    with Heartbeat() as calm:
        settle(0.2)
    check(calm)
    with Heartbeat() as beat:
        QTimer.singleShot(20, lambda: time.sleep(3 * LIMIT_S))
        settle(5 * LIMIT_S)
    assert beat.fed > LIMIT_S
    with Heartbeat() as beat:
        # longer: who waits for the lock wakes again and again, and on a crowded machine waits then
        thread = threading.Thread(target=keep_the_lock, args=(10 * LIMIT_S,))
        thread.start()
        settle(12 * LIMIT_S)
        thread.join()
    assert beat.fed > LIMIT_S


def keep_the_lock(seconds):
    """Sleep as C code does that does not give up the interpreter lock."""
    if sys.platform == "win32":
        ctypes.PyDLL("kernel32").Sleep(round(1000 * seconds))
    else:
        ctypes.PyDLL(None).usleep(round(1_000_000 * seconds))


@pytest.fixture
def collections():
    """Garbage collections as users have them: only the dock spares them what lasts."""
    gc.unfreeze()


@pytest.fixture
def app(open_app, settle):
    """A window that is shown, warm: windows, shaders and kernels are made once."""
    app = open_app(data.chelsea(), show=True)
    app.segment()
    app.viewer.layers["photo"].data = data.chelsea()[::-1].copy()
    settle(0.3)
    return app


def test_segmenting_and_sliding_leave_the_window_fluid(app, settle):
    with Heartbeat() as beat:
        app.segment()
        slider = app.dock.crf_panel.sliders["theta_alpha"][0].slider
        for position in range(300, 600, 15):
            slider.setValue(position)
            settle(0.02)
        app.idle()
        app.after(lambda: app.dock.crf_panel.iterations.setValue(4))
    check(beat)


def test_loading_a_model_leaves_the_window_fluid(app, wait_until):
    old = app.dock.session.model
    with Heartbeat() as beat:
        app.dock.model_choice.load("voc-compact")
        wait_until(lambda: app.dock.session.model is not old)
        app.idle()
    check(beat)


def test_training_leaves_the_window_fluid(app, wait_until, monkeypatch, shorten_recipe, tmp_path):
    from napari_deepcrf.plugin import annotating

    monkeypatch.setattr(annotating, "AUTOSAVE_FOLDER", tmp_path)
    monkeypatch.setattr("napari_deepcrf.session.training.PREVIEW_EVERY_S", 0.0)
    shorten_recipe("scribbles", unary={"iterations": 3}, joint={"iterations": 2})
    app.dock.annotate()
    layer = app.dock.annotating.layer
    layer.data[10:20, 10:200] = 1
    layer.data[120:130, 200:300] = 2
    app.idle()
    with Heartbeat() as beat:
        app.dock.train()
        wait_until(lambda: app.dock.learning.on_trial)
        app.idle()  # layers come and go at the end
    check(beat)
    assert app.viewer.layers["photo [after]"].visible


class Cycle:
    """Holds itself: only a garbage collection frees it."""

    def __init__(self):
        self.me = self


def test_what_was_set_apart_is_freed_nevertheless(open_app, photo, wait_until):
    held = [Cycle()]  # in a list: napari reads the local names of its callers, which keeps them
    cycle = weakref.ref(held[0])
    app = open_app(photo)
    assert gc.get_freeze_count() > MANY_OBJECTS
    held.clear()
    gc.collect()
    assert cycle() is not None  # set apart
    image = weakref.ref(app.viewer.layers["photo"])
    app.viewer.layers.remove("photo")
    wait_until(lambda: cycle() is None)
    assert gc.get_freeze_count() > MANY_OBJECTS
    if PYQT6:  # with PySide6, napari's controls of a removed layer keep it, without us as well
        wait_until(lambda: image() is None)


def callbacks(viewer):
    """How many listeners the viewer's events have."""
    emitters = [
        viewer.layers.events,
        viewer.layers.selection.events,
        viewer.dims.events,
        viewer.events,
        viewer.layers["photo"].events,
    ]
    # napari's own brush keeps listening to this one after its labels layer is gone
    napari_leaves = "mouse_over_canvas"
    return [
        sum(len(e.callbacks) for name, e in group.emitters.items() if name != napari_leaves)
        for group in emitters
    ]


def test_a_closed_dock_leaves_nothing_behind(open_app, photo, make_napari_viewer, wait_until):
    interval = sys.getswitchinterval()
    app = open_app(photo)
    assert sys.getswitchinterval() == pytest.approx(SWITCH_INTERVAL_S)
    app.segment()
    app.dock.annotate()
    app.dock.crf_panel.sliders["theta_alpha"][0].slider.setValue(400)  # timers run
    session = app.dock.session
    app.viewer.window.remove_dock_widget(app.dock)
    app.dock.deleteLater()
    app.dock = None
    wait_until(lambda: (QApplication.sendPostedEvents(None, 52), not app.viewer.keymap)[1])
    for layer in list(app.viewer.layers)[1:]:
        app.viewer.layers.remove(layer)
    plain = make_napari_viewer()
    plain.add_image(photo, name="photo")
    gc.collect()
    assert callbacks(app.viewer) == callbacks(plain)
    assert QThreadPool.globalInstance().activeThreadCount() == 0
    assert session.cache is None
    assert sys.getswitchinterval() == interval
    assert gc.get_freeze_count() < MANY_OBJECTS
    ours = [w for w in QApplication.allWidgets() if type(w).__module__.startswith("napari_deep")]
    assert ours == []
    assert [
        timer for timer in gc.get_objects() if issubclass(type(timer), QTimer) and is_ours(timer)
    ] == []


def is_ours(timer):
    """Whether a timer lives and belongs to an object of the plugin."""
    try:
        return type(timer.parent()).__module__.startswith("napari_deepcrf")
    except RuntimeError:  # deleted with its parent
        return False


def test_a_layer_is_drawn_in_a_turn_after_it_came(app, settle):
    window = app.dock.window()
    add_layer(app.viewer, Points([]))
    assert not window.updatesEnabled()
    add_layer(app.viewer, Points([]))  # another one before the window was drawn
    settle()
    assert window.updatesEnabled()
