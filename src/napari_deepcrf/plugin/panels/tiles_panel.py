"""One image in tiles: what the network sees of it, and where the labels go."""

from __future__ import annotations

from qtpy.QtWidgets import QGroupBox, QLineEdit, QSpinBox, QWidget

from napari_deepcrf.plugin.panels.form import Note, add_row, button, form, row
from napari_deepcrf.plugin.qt import Signal
from napari_deepcrf.plugin.tooltips import TOOLTIPS

VIEW = 1024
"""Pixels side by side that most models were made for, as the command line takes them."""


class TilesPanel(QGroupBox):
    """A group of the Batch tab, for an image that is a single plane."""

    run_clicked = Signal()
    out_wanted = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__("The image in tiles", parent)
        self._single = False
        self._running = False
        self._chosen = False
        self.view = QSpinBox()
        self.view.setRange(64, 1_000_000)
        self.view.setSingleStep(256)
        self.view.setValue(VIEW)
        self.view.setSuffix(" px")
        self.out = QLineEdit()
        self.out.setToolTip(TOOLTIPS["tiles_out"])
        self.choose = button("…", "tiles_out")
        self.choose.setFixedWidth(32)
        self.run = button("Segment in tiles", "tiles")
        self.note = Note("tiles")
        layout = form(self)
        add_row(layout, "Sees", self.view, "tiles_view")
        add_row(layout, "Labels", row(self.out, self.choose, stretch=(1, 0)), "tiles_out", self.out)
        layout.addRow(self.run)
        layout.addRow(self.note)
        self.choose.clicked.connect(self.out_wanted)
        self.run.clicked.connect(self.run_clicked)
        self.out.textEdited.connect(self._keep_out)
        self._enable()

    def show_image(self, name: str, out: str, *, single: bool) -> None:
        """Offer it for a single plane; ``out`` is where the labels go if nobody says."""
        self._single = single
        self.setVisible(single or not name)
        if not self._chosen:
            self.out.setText(out)
            self.out.setCursorPosition(0)
        if not self._running:
            self.note.setText("" if name else "No image is chosen.")
        self._enable()

    def choose_out(self, folder: str) -> None:
        """Let the labels of this and of all other images go there."""
        self.out.setText(folder)
        self._keep_out()

    def show_running(self, running: bool) -> None:
        """One image at a time."""
        self._running = running
        self._enable()

    def _keep_out(self, _text: str = "") -> None:
        self._chosen = bool(self.out.text().strip())

    def _enable(self) -> None:
        self.run.setEnabled(self._single and not self._running)
