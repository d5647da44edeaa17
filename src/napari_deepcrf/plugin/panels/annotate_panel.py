"""Scribbles: the layer, the classes, and live mode."""

from __future__ import annotations

from collections.abc import Sequence

from qtpy.QtCore import QSignalBlocker, Qt
from qtpy.QtWidgets import (
    QAbstractItemView,
    QCheckBox,
    QLabel,
    QListWidget,
    QListWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_deepcrf.plugin.panels.form import add_row, button, combo, form, row
from napari_deepcrf.plugin.panels.swatch import swatch
from napari_deepcrf.plugin.qt import Signal
from napari_deepcrf.plugin.tooltips import TOOLTIPS
from napari_deepcrf.session.annotations import AnnotationClass

KEYS = 9
LIST_HEIGHT = 190


class AnnotatePanel(QWidget):
    """Shows the class list and emits what the user wants of it."""

    annotate_clicked = Signal()
    layer_chosen = Signal(object)
    class_picked = Signal(int)
    class_renamed = Signal(int, str)
    colour_wanted = Signal(int)
    class_added = Signal()
    new_list = Signal()
    live_toggled = Signal(bool)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._layers: list[object] = []
        self.annotate = button("Annotate  (Shift+A)", "annotate")
        self.layer = combo()
        self.classes = QListWidget()
        self.classes.setToolTip(TOOLTIPS["classes"])
        self.classes.setFixedHeight(LIST_HEIGHT)
        self.classes.setEditTriggers(
            QAbstractItemView.EditTrigger.DoubleClicked
            | QAbstractItemView.EditTrigger.EditKeyPressed
        )
        self.add = button("Add", "add_class")
        self.colour = button("Colour…", "colour")
        self.reset = button("New list", "new_list")
        self.live = QCheckBox("Live: follow every stroke")
        self.live.setToolTip(TOOLTIPS["live"])
        self.live_note, self.note = QLabel(), QLabel()
        for label in (self.live_note, self.note):
            label.setWordWrap(True)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        box = QWidget()
        outer.addWidget(box)
        outer.addStretch(1)
        layout = form(box)
        layout.addRow(self.annotate)
        add_row(layout, "Scribbles", self.layer, "scribbles")
        layout.addRow(self.classes)
        layout.addRow(row(self.add, self.colour, self.reset))
        layout.addRow(self.live)
        layout.addRow(self.live_note)
        layout.addRow(self.note)
        self.annotate.clicked.connect(self.annotate_clicked)
        self.layer.activated.connect(self._on_layer)
        self.classes.currentRowChanged.connect(self._on_row)
        self.classes.itemChanged.connect(self._on_item)
        self.colour.clicked.connect(lambda: self.colour_wanted.emit(self.classes.currentRow()))
        self.add.clicked.connect(self.class_added)
        self.reset.clicked.connect(self.new_list)
        self.live.toggled.connect(self.live_toggled)
        self.show_live("")

    def show_live(self, text: str) -> None:
        """Say why live mode follows nothing at present; nothing where it does."""
        self.live_note.setText(text)
        self.live_note.setVisible(bool(text))

    def set_layers(self, layers: Sequence[object], names: Sequence[str], chosen: object) -> None:
        """List the labels layers that can be learned from."""
        self._layers = list(layers)
        with QSignalBlocker(self.layer):
            self.layer.clear()
            self.layer.addItems(list(names) or ["none yet"])
            self.layer.setEnabled(bool(names))
            if chosen in self._layers:
                self.layer.setCurrentIndex(self._layers.index(chosen))

    def set_classes(self, classes: Sequence[AnnotationClass]) -> None:
        """Show the class list; the first nine carry their key."""
        with QSignalBlocker(self.classes):
            current = self.classes.currentRow()
            self.classes.clear()
            for index, entry in enumerate(classes):
                key = str(index + 1) if index < KEYS else " "  # as large, without a digit
                item = QListWidgetItem(swatch(entry.colour, key), entry.name)
                item.setFlags(item.flags() | Qt.ItemFlag.ItemIsEditable)
                if index < KEYS:
                    item.setToolTip(f"Shift+{index + 1} picks it")
                self.classes.addItem(item)
            self.classes.setCurrentRow(min(max(current, 0), self.classes.count() - 1))

    def pick(self, index: int) -> None:
        """Select a class, as its key does."""
        if 0 <= index < self.classes.count():
            self.classes.setCurrentRow(index)

    def _on_layer(self, index: int) -> None:
        if index < len(self._layers):
            self.layer_chosen.emit(self._layers[index])

    def _on_row(self, index: int) -> None:
        if index >= 0:
            self.class_picked.emit(index)

    def _on_item(self, item: QListWidgetItem) -> None:
        self.class_renamed.emit(self.classes.row(item), item.text())
