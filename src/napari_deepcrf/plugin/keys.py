"""Key bindings on the viewer, given back when the dock closes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

from qtpy.QtGui import QKeySequence
from qtpy.QtWidgets import QWidget

from napari_deepcrf.plugin.qt import QShortcut

if TYPE_CHECKING:
    from napari.viewer import Viewer


def bind_keys(
    viewer: Viewer, actions: Mapping[str, Callable[[], object]], cleanup: ExitStack
) -> None:
    """Bind keys such as ``Shift-D``; what they were bound to before comes back on cleanup."""
    for key, action in actions.items():
        before = viewer.bind_key(key, _handler(action), overwrite=True)
        cleanup.callback(viewer.bind_key, key, before, overwrite=True)


def add_digit_shortcuts(widget: QWidget, pick: Callable[[int], object], count: int) -> None:
    """Let Shift+1, Shift+2, … pick 0, 1, … anywhere in the widget's window, while it lives.

    Qt knows which key a digit is on every keyboard; to napari's key map, Shift and a digit are
    whatever sign the keyboard's layout makes of them.
    """
    for index in range(count):
        shortcut = QShortcut(QKeySequence(f"Shift+{index + 1}"), widget)
        shortcut.activated.connect(partial(pick, index))


def _handler(action: Callable[[], object]) -> Callable[[Any], None]:
    def handle(_viewer: Any) -> None:
        action()

    return handle
