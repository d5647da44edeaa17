"""A CRF for other tools' results, and objects from classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from qtpy.QtCore import QSignalBlocker, Qt
from qtpy.QtWidgets import (
    QAbstractItemView,
    QDoubleSpinBox,
    QFormLayout,
    QGroupBox,
    QHeaderView,
    QSpinBox,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_deepcrf.plugin.panels.form import add_row, button, combo, form
from napari_deepcrf.plugin.panels.swatch import swatch
from napari_deepcrf.plugin.qt import Signal
from napari_deepcrf.plugin.tooltips import TOOLTIPS

MODEL = "The model"
COLUMNS = {
    "index": "#",
    "area": "area",
    "mean_probability": "prob.",
    "boundary_entropy": "entropy",
}
TABLE_HEIGHT = 150


class ToolsPanel(QWidget):
    """Two small forms; each emits what the user wants."""

    source_chosen = Signal(object, float)  # a layer or None for the model; confidence
    objects_clicked = Signal(int, int)  # class index, least size in pixels
    object_picked = Signal(int)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._layers: list[object] = []
        self.source = combo()
        self.confidence = QDoubleSpinBox()
        self.confidence.setRange(0.51, 0.99)
        self.confidence.setSingleStep(0.05)
        self.confidence.setValue(0.8)
        self.confidence.setKeyboardTracking(False)
        self.object_class = combo()
        self.minimum = QSpinBox()
        self.minimum.setRange(1, 1_000_000)
        self.minimum.setValue(20)
        self.minimum.setSuffix(" px")
        self.objects = button("Make objects", "objects")
        self.objects.setEnabled(False)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(6, 6, 6, 6)
        outer.setSpacing(8)
        refine = self._group(outer, "Refine scores of")
        add_row(refine, "Source", self.source, "source")
        add_row(refine, "Trust", self.confidence, "confidence")
        objects = self._group(outer, "Objects")
        add_row(objects, "Class", self.object_class, "object_class")
        add_row(objects, "Least size", self.minimum, "minimum")
        objects.addRow(self.objects)
        self.table = _table()
        objects.addRow(self.table)
        outer.addStretch(1)
        self.source.activated.connect(self._emit_source)
        self.confidence.valueChanged.connect(self._emit_source)
        self.objects.clicked.connect(lambda: self.objects_clicked.emit(*self.objects_wanted()))
        for chosen in (self.table.cellClicked, self.table.cellActivated):  # by mouse, by Enter
            chosen.connect(self._on_row)
        self.set_sources((), (), None)

    def _group(self, outer: QVBoxLayout, title: str) -> QFormLayout:
        box = QGroupBox(title)
        outer.addWidget(box)
        return form(box)

    def set_sources(self, layers: Sequence[object], names: Sequence[str], chosen: object) -> None:
        """List the layers that can stand in for the model's scores."""
        self._layers = list(layers)
        with QSignalBlocker(self.source):
            self.source.clear()
            self.source.addItems([MODEL, *names])
            index = self._layers.index(chosen) + 1 if chosen in self._layers else 0
            self.source.setCurrentIndex(index)
        self.confidence.setEnabled(self.source.currentIndex() > 0)

    def objects_wanted(self) -> tuple[int, int]:
        """Class index and least size in pixels."""
        return self.object_class.currentIndex(), self.minimum.value()

    def set_classes(
        self, names: Sequence[str], colours: Sequence[tuple[int, int, int]], chosen: int
    ) -> None:
        """Offer the classes of a result for objects."""
        with QSignalBlocker(self.object_class):
            self.object_class.clear()
            for name, colour in zip(names, colours, strict=True):
                self.object_class.addItem(swatch(colour), name)
            self.object_class.setCurrentIndex(chosen)
        self.objects.setEnabled(bool(names))
        self.objects.setToolTip(TOOLTIPS["objects"])

    def show_objects(self, columns: Mapping[str, np.ndarray]) -> None:
        """Fill the table with one row an object; clicking a row emits its number."""
        names = tuple(COLUMNS)
        self.table.setSortingEnabled(False)
        self.table.setRowCount(len(columns["index"]))
        for row_number, values in enumerate(zip(*(columns[n] for n in names), strict=True)):
            for column, value in enumerate(values):
                item = QTableWidgetItem()
                item.setData(Qt.ItemDataRole.DisplayRole, round(float(value), 3))
                self.table.setItem(row_number, column, item)
        self.table.setSortingEnabled(True)
        self.table.sortByColumn(0, Qt.SortOrder.AscendingOrder)
        self.table.setVisible(True)

    def _on_row(self, row_number: int, _column: int) -> None:
        item = self.table.item(row_number, 0)
        if item is not None:
            self.object_picked.emit(int(item.data(Qt.ItemDataRole.DisplayRole)))

    def _emit_source(self) -> None:
        index = self.source.currentIndex()
        self.confidence.setEnabled(index > 0)
        layer = self._layers[index - 1] if index > 0 else None
        self.source_chosen.emit(layer, self.confidence.value())


def _table() -> QTableWidget:
    """An empty, sortable table that fits the dock's width; hidden until it is filled."""
    table = QTableWidget(0, len(COLUMNS))
    table.setHorizontalHeaderLabels(list(COLUMNS.values()))
    table.setFixedHeight(TABLE_HEIGHT)
    table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
    table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
    table.setToolTip(TOOLTIPS["table"])
    for header, mode in (
        (table.horizontalHeader(), QHeaderView.ResizeMode.Stretch),
        (table.verticalHeader(), QHeaderView.ResizeMode.ResizeToContents),
    ):
        if header is not None:
            header.setSectionResizeMode(mode)
    vertical = table.verticalHeader()
    if vertical is not None:
        vertical.hide()
    table.hide()
    return table
