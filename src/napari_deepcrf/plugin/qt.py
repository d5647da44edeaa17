"""The few Qt names that qtpy's type information lacks, and timers that look alike."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from qtpy.QtCore import QObject, QTimer
from qtpy.QtCore import Signal as Signal  # type: ignore[attr-defined]
from qtpy.QtGui import QShortcut as QShortcut  # type: ignore[attr-defined]
from qtpy.QtWidgets import QApplication


def single_shot(parent: QObject, milliseconds: int, slot: Callable[[], object]) -> QTimer:
    """Timer that fires once, the given time after its last ``start()``."""
    timer = QTimer(parent)
    timer.setSingleShot(True)
    timer.setInterval(milliseconds)
    timer.timeout.connect(slot)
    return timer


def draw_in_another_turn() -> None:
    """Have what changes now drawn in a turn of the event loop of its own, not at the end of this.

    Windows otherwise draw before their timers: what adds a layer and what draws it would add up.
    """
    for window in QApplication.topLevelWidgets():
        if window.isVisible() and window.updatesEnabled():
            window.setUpdatesEnabled(False)
            timer = single_shot(window, 0, partial(window.setUpdatesEnabled, True))
            timer.timeout.connect(timer.deleteLater)
            timer.start()
