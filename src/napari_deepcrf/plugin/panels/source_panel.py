"""What is segmented, by which model, on which device."""

from __future__ import annotations

from collections.abc import Sequence

from qtpy.QtCore import QSignalBlocker
from qtpy.QtWidgets import QLabel, QWidget

from napari_deepcrf.plugin.panels.form import add_row, button, combo, form, row
from napari_deepcrf.plugin.qt import Signal
from napari_deepcrf.session.settings import Keep

OPEN_FILE = "Open a model file…"
KEEP = {
    "all marginals": Keep(),
    "of present classes": Keep(present_only=True),
    "of the last update": Keep(last_only=True),
    "of both only": Keep(present_only=True, last_only=True),
}


class SourcePanel(QWidget):
    """Image, model and device, and the button that starts it all."""

    image_chosen = Signal(object)  # a layer
    model_chosen = Signal(str)  # zoo name or path
    open_model = Signal()
    device_chosen = Signal(str)
    keep_chosen = Signal(object)  # Keep
    segment_clicked = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._layers: list[object] = []
        self.image = combo()
        self.model = combo()
        self.device = combo()
        self.keep = combo()
        self.keep.addItems(list(KEEP))
        self.memory = QLabel()
        self.device_note = QLabel()
        self.device_note.setWordWrap(True)
        self.segment = button("Segment  (Shift+D)", "segment")
        layout = form(self)
        add_row(layout, "Image", self.image, "image")
        add_row(layout, "Model", self.model, "model")
        add_row(layout, "Device", self.device, "device")
        layout.addRow(self.device_note)
        add_row(
            layout, "Keep", row(self.keep, self.memory, stretch=(1, 0)), "keep_marginals", self.keep
        )
        layout.addRow(self.segment)
        self.device_note.hide()
        self.image.activated.connect(self._on_image)
        self.model.activated.connect(self._on_model)
        self.device.activated.connect(
            lambda: self.device_chosen.emit(str(self.device.currentData()))
        )
        self.keep.activated.connect(lambda: self.keep_chosen.emit(KEEP[self.keep.currentText()]))
        self.segment.clicked.connect(self.segment_clicked)

    def set_images(self, layers: Sequence[object], names: Sequence[str], chosen: object) -> None:
        """List the image layers and show which one is chosen."""
        self._layers = list(layers)
        with QSignalBlocker(self.image):
            self.image.clear()
            self.image.addItems(list(names) or ["no image layer"])
            self.image.setEnabled(bool(names))
            if chosen in self._layers:
                self.image.setCurrentIndex(self._layers.index(chosen))

    def set_models(self, names: Sequence[str], chosen: str) -> None:
        """List model names and paths and show which one is chosen."""
        known = [*names] if chosen in names or not chosen else [*names, chosen]
        with QSignalBlocker(self.model):
            self.model.clear()
            for name in known:
                self.model.addItem(name.replace("\\", "/").rsplit("/", 1)[-1], name)
            self.model.addItem(OPEN_FILE, None)
            self.model.setCurrentIndex(known.index(chosen) if chosen in known else 0)

    def set_devices(self, entries: Sequence[tuple[str, str]], chosen: str, note: str) -> None:
        """List devices as (value, text); ``note`` is a warning shown below, if any."""
        with QSignalBlocker(self.device):
            self.device.clear()
            for value, text in entries:
                self.device.addItem(text, value)
            self.device.setCurrentIndex(max(0, self.device.findData(chosen)))
        self.device_note.setText(note)
        self.device_note.setVisible(bool(note))

    def show_memory(self, keep: Keep, needed: int) -> None:
        """Show what is kept of a result, and the bytes at most that its layers will take."""
        with QSignalBlocker(self.keep):
            self.keep.setCurrentIndex(list(KEEP.values()).index(keep))
        most = "≤ " if keep.present_only else ""
        self.memory.setText(f"{most}{in_words(needed)}" if needed else "")

    def _on_image(self, index: int) -> None:
        if index < len(self._layers):
            self.image_chosen.emit(self._layers[index])

    def _on_model(self) -> None:
        name = self.model.currentData()
        if name is None:
            self.open_model.emit()
        else:
            self.model_chosen.emit(str(name))


def in_words(size: int) -> str:
    """A number of bytes as people say it."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{max(1, round(size / 1e6))} MB"
