"""What is running, how far it is, what went wrong, and whether the result is up to date."""

from __future__ import annotations

from textwrap import shorten

from qtpy.QtWidgets import QHBoxLayout, QLabel, QProgressBar, QVBoxLayout, QWidget

from napari_deepcrf.plugin.panels.form import button
from napari_deepcrf.plugin.qt import Signal
from napari_deepcrf.plugin.tooltips import TOOLTIPS

LONGEST = 240
"""Characters of an error that are shown; all of it is in the tooltip."""
ERROR_STYLE = "color: #d94452"  # as the badges': 3.3 to 1 and more on either theme's background
BADGES = {
    "fresh": ("● up to date", "color: #358a55"),
    "stale": ("● out of date", "color: #ad6b0c"),
    "none": ("", ""),
}


class StatusPanel(QWidget):
    """Progress bar with Cancel, one line of text, and the badge."""

    cancel_clicked = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.bar = QProgressBar()
        self.bar.setTextVisible(False)
        self.bar.setFixedHeight(14)
        self.cancel = button("Cancel", "cancel")
        self.text = QLabel("Ready")
        self.text.setWordWrap(True)
        self.badge = QLabel()
        self.badge.setToolTip(TOOLTIPS["badge"])
        top, bottom = QHBoxLayout(), QHBoxLayout()
        for layout in (top, bottom):
            layout.setContentsMargins(0, 0, 0, 0)
        top.addWidget(self.bar, stretch=1)
        top.addWidget(self.cancel)
        bottom.addWidget(self.text, stretch=1)
        bottom.addWidget(self.badge)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(6, 2, 6, 6)
        outer.setSpacing(4)
        outer.addLayout(top)
        outer.addLayout(bottom)
        self.cancel.clicked.connect(self.cancel_clicked)
        self.show_idle("Ready")

    def show_progress(self, text: str, done: int, total: int) -> None:
        """A job runs; total 0 makes the bar swing."""
        self.bar.setRange(0, total)
        self.bar.setValue(done)
        self.cancel.setEnabled(True)
        self._say(text)

    def show_cancelling(self) -> None:
        """Cancel was pressed; the worker has not stopped yet."""
        self.cancel.setEnabled(False)
        self._say("Cancelling…")

    def show_idle(self, text: str) -> None:
        """Nothing runs."""
        self.bar.setRange(0, 1)
        self.bar.setValue(0)
        self.cancel.setEnabled(False)
        self._say(text)

    def show_error(self, text: str) -> None:
        """Something failed, or cannot be done."""
        self.show_idle(shorten(text, LONGEST, placeholder=" …"))
        self.text.setToolTip(text if len(text) > LONGEST else "")
        self._style(self.text, ERROR_STYLE)

    def set_badge(self, state: str) -> None:
        """``fresh``, ``stale`` or ``none``."""
        text, style = BADGES[state]
        self.badge.setText(text)
        self._style(self.badge, style)

    def _say(self, text: str) -> None:
        self._style(self.text, "")
        self.text.setToolTip("")
        self.text.setText(text)

    @staticmethod
    def _style(label: QLabel, style: str) -> None:
        # a style sheet set anew is parsed and polished anew, even an equal one
        if label.styleSheet() != style:
            label.setStyleSheet(style)
