"""A CRF for other tools' results, objects from classes, and batches."""

from __future__ import annotations

from collections.abc import Sequence

from qtpy.QtCore import QSignalBlocker
from qtpy.QtWidgets import QDoubleSpinBox, QGroupBox, QSpinBox, QVBoxLayout, QWidget

from napari_deepcrf.plugin.panels.form import add_row, button, combo, form, row
from napari_deepcrf.plugin.panels.view_panel import swatch
from napari_deepcrf.plugin.qt import Signal
from napari_deepcrf.plugin.tooltips import TOOLTIPS

MODEL = "The model"


class ToolsPanel(QWidget):
    """Three small forms; each emits what the user wants."""

    source_chosen = Signal(object, float)  # a layer or None for the model; confidence
    objects_clicked = Signal(int, int)  # class index, least size in pixels
    batch_stack = Signal()
    batch_folder = Signal()

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
        self.stack = button("All planes", "batch")
        self.folder = button("A folder…", "batch")
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
        batch = self._group(outer, "Batch, same model and settings")
        batch.addRow(row(self.stack, self.folder))
        outer.addStretch(1)
        self.source.activated.connect(self._emit_source)
        self.confidence.valueChanged.connect(self._emit_source)
        self.objects.clicked.connect(
            lambda: self.objects_clicked.emit(
                self.object_class.currentIndex(), self.minimum.value()
            )
        )
        self.stack.clicked.connect(self.batch_stack)
        self.folder.clicked.connect(self.batch_folder)
        self.set_sources((), (), None)

    def _group(self, outer: QVBoxLayout, title: str):  # type: ignore[no-untyped-def]
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

    def _emit_source(self) -> None:
        index = self.source.currentIndex()
        self.confidence.setEnabled(index > 0)
        layer = self._layers[index - 1] if index > 0 else None
        self.source_chosen.emit(layer, self.confidence.value())
