"""The few Qt names that qtpy's type information lacks, and timers that look alike."""

from __future__ import annotations

from collections.abc import Callable

from qtpy.QtCore import QObject, QTimer
from qtpy.QtCore import Signal as Signal  # type: ignore[attr-defined]
from qtpy.QtGui import QShortcut as QShortcut  # type: ignore[attr-defined]


def single_shot(parent: QObject, milliseconds: int, slot: Callable[[], object]) -> QTimer:
    """Timer that fires once, the given time after its last ``start()``."""
    timer = QTimer(parent)
    timer.setSingleShot(True)
    timer.setInterval(milliseconds)
    timer.timeout.connect(slot)
    return timer
