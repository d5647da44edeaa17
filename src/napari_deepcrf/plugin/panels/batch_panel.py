"""Batches: the model and the CRF settings chosen now, over a stack or a folder."""

from __future__ import annotations

import math
from collections.abc import Sequence

from qtpy.QtWidgets import QDoubleSpinBox, QGroupBox, QLabel, QLineEdit, QVBoxLayout, QWidget

from napari_deepcrf.plugin.panels.form import Note, add_row, button, combo, form, row
from napari_deepcrf.plugin.panels.tiles_panel import TilesPanel
from napari_deepcrf.plugin.qt import Signal
from napari_deepcrf.plugin.tooltips import TOOLTIPS

FORMATS = ("png", "numpy", "ome-zarr", "coco-rle")
"""Names of `napari_deepcrf.batch.formats`, which is not loaded for a list."""


class BatchPanel(QWidget):
    """Emits what is to be segmented; progress and Cancel are the dock's."""

    stack_clicked = Signal()
    width_changed = Signal(float)
    folder_wanted = Signal()
    out_wanted = Signal()
    folder_clicked = Signal()
    open_clicked = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._planes = 0
        self._axes = 0
        self._running = False
        self.summary = QLabel()
        self.summary.setWordWrap(True)
        self.tiles = TilesPanel()
        self.stack_group = QGroupBox("The image's stack")
        self.stack = button("Segment all planes", "batch_stack")
        self.planes_width = QDoubleSpinBox()
        self.planes_width.setRange(0, 50)
        self.planes_width.setDecimals(1)
        self.planes_width.setSingleStep(0.5)
        self.planes_width.setSpecialValueText("off")
        self.folder, self.out = QLineEdit(), QLineEdit()
        self.choose_folder = button("…", "batch_folder")
        self.choose_out = button("…", "batch_out")
        self.kind = combo()
        self.kind.addItems(FORMATS)
        self.run = button("Segment the folder", "batch_run")
        self.open = button("Open the labels' folder", "batch_open")
        self.note, self.folder_note = Note("batch_stack"), Note("batch_run")
        for pick in (self.choose_folder, self.choose_out):
            pick.setFixedWidth(32)
        self._lay_out()
        self.stack.clicked.connect(self.stack_clicked)
        self.planes_width.valueChanged.connect(self.width_changed)
        self.choose_folder.clicked.connect(self.folder_wanted)
        self.choose_out.clicked.connect(self.out_wanted)
        self.run.clicked.connect(self.folder_clicked)
        self.open.clicked.connect(self.open_clicked)
        for line in (self.folder, self.out):
            line.textChanged.connect(self._enable)
        self.show_running(False)

    def set_folders(self, folder: str, out: str) -> None:
        """Show where images come from and labels go."""
        for line, text in ((self.folder, folder), (self.out, out)):
            line.setText(text)
            line.setCursorPosition(0)

    def folders(self) -> tuple[str, str]:
        """The two folders as they are written there; empty for none."""
        return self.folder.text().strip(), self.out.text().strip()

    def show_choice(self, stack: Sequence[int], model: str) -> None:
        """Say what would be segmented by what; ``stack`` are the lengths of the stack's axes."""
        planes = math.prod(stack)
        self.stack_group.setVisible(planes > 1)
        self.summary.setText(f"With the model {model} and the sliders as they are now.")
        self.stack.setText(f"Segment all {planes} planes" if planes > 1 else "Segment all planes")
        if not self._running:
            self.note.setText("")
        self._planes, self._axes = planes, len(stack)
        self._enable()

    def show_memory(self, needed: int) -> None:
        """Say what one CRF over all planes would take."""
        if self.planes_width.isEnabled() and not self._running:
            self.note.setText(f"One CRF over all planes takes about {needed / 1e9:.2f} GB.")

    def show_running(self, running: bool) -> None:
        """One batch at a time."""
        self._running = running
        self._enable()

    def _enable(self, _text: str = "") -> None:
        self.stack.setEnabled(self._planes > 1 and not self._running)
        self.planes_width.setEnabled(self._planes > 1 and self._axes == 1 and not self._running)
        self.run.setEnabled(bool(self.folders()[0]) and not self._running)
        self.open.setEnabled(bool(self.folders()[1]))

    def _lay_out(self) -> None:
        outer = QVBoxLayout(self)
        outer.setContentsMargins(6, 6, 6, 6)
        outer.setSpacing(8)
        outer.addWidget(self.summary)
        outer.addWidget(self.tiles)
        layout = form(self.stack_group)
        add_row(layout, "3-D CRF", self.planes_width, "batch_width")
        layout.addRow(self.stack)
        layout.addRow(self.note)
        outer.addWidget(self.stack_group)
        folder = QGroupBox("A folder of images")
        layout = form(folder)
        for text, line, pick, tip in (
            ("Images", self.folder, self.choose_folder, "batch_folder"),
            ("Labels", self.out, self.choose_out, "batch_out"),
        ):
            add_row(layout, text, row(line, pick, stretch=(1, 0)), tip, line)
            line.setToolTip(TOOLTIPS[tip])
        add_row(layout, "Format", self.kind, "batch_format")
        layout.addRow(self.run)
        layout.addRow(self.open)
        layout.addRow(self.folder_note)
        outer.addWidget(folder)
        outer.addStretch(1)
