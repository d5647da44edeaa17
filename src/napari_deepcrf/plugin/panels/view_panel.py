"""Which class and which update the viewer shows, by name."""

from __future__ import annotations

from collections.abc import Sequence

from qtpy.QtCore import QSignalBlocker, Qt
from qtpy.QtWidgets import QHBoxLayout, QLabel, QSlider, QWidget

from napari_deepcrf.plugin.panels.form import add_row, combo, form
from napari_deepcrf.plugin.panels.swatch import swatch
from napari_deepcrf.plugin.qt import Signal


class ViewPanel(QWidget):
    """Class and update as in the viewer's own sliders, but with names, and a readout."""

    class_chosen = Signal(int)
    update_chosen = Signal(int)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.classes = combo()
        self._shown: tuple[list[str], list[tuple[int, int, int]]] = ([], [])
        self.update_slider = QSlider(Qt.Orientation.Horizontal)
        self.update_slider.setPageStep(1)
        self.update_text = QLabel("0 / 0")
        self.update_text.setFixedWidth(64)
        self.update_text.setAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        updates = QWidget()
        line = QHBoxLayout(updates)
        line.setContentsMargins(0, 0, 0, 0)
        line.setSpacing(6)
        line.addWidget(self.update_slider, stretch=1)
        line.addWidget(self.update_text)
        layout = form(self)
        add_row(layout, "Class", self.classes, "class")
        add_row(layout, "Update", updates, "update", self.update_slider)
        self.classes.activated.connect(self.class_chosen)
        self.update_slider.valueChanged.connect(self._on_update)
        self.setEnabled(False)

    def set_result(
        self, names: Sequence[str], colours: Sequence[tuple[int, int, int]], iterations: int
    ) -> None:
        """Offer the classes and updates of a result."""
        with QSignalBlocker(self.classes), QSignalBlocker(self.update_slider):
            index = self.classes.currentIndex()
            if self._shown != (list(names), list(colours)):
                self._shown = list(names), list(colours)
                self.classes.clear()
                for name, colour in zip(names, colours, strict=True):
                    self.classes.addItem(swatch(colour), name)
                self.classes.setCurrentIndex(min(max(index, 0), len(names) - 1))
            self.update_slider.setRange(0, iterations)
            self._show_update(self.update_slider.value())
        self.setEnabled(True)

    def show_position(self, class_index: int, update: int) -> None:
        """Follow the viewer's sliders."""
        with QSignalBlocker(self.classes), QSignalBlocker(self.update_slider):
            self.classes.setCurrentIndex(class_index)
            self.update_slider.setValue(update)
        self._show_update(update)

    def _on_update(self, value: int) -> None:
        self._show_update(value)
        self.update_chosen.emit(value)

    def _show_update(self, value: int) -> None:
        last = self.update_slider.maximum()
        self.update_text.setText("unary" if value == 0 else f"{value} / {last}")
