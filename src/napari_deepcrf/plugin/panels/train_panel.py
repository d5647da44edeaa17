"""Training: data, recipe, live curves, and the verdict afterwards."""

from __future__ import annotations

from qtpy.QtCore import QSignalBlocker
from qtpy.QtWidgets import QLabel, QVBoxLayout, QWidget

from napari_deepcrf.plugin.curves import CurvePlot
from napari_deepcrf.plugin.panels.form import add_row, button, combo, form, row
from napari_deepcrf.plugin.qt import Signal
from napari_deepcrf.plugin.tooltips import TOOLTIPS

RECIPES = ("scribbles", "compact", "paper")
PAINTED = "Painted images"
FOLDER = "Choose a folder…"


class TrainPanel(QWidget):
    """Emits what the user wants of a training and shows how it goes."""

    train_clicked = Signal()
    folder_wanted = Signal()
    pause_clicked = Signal()
    stop_clicked = Signal()
    keep_clicked = Signal()
    revert_clicked = Signal()
    save_clicked = Signal()
    folder_clicked = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._loss: tuple[list[float], list[float]] = ([], [])
        self._iou: dict[str, tuple[list[float], list[float]]] = {}
        self._stage, self._offset = "", 0
        self.data = combo()
        self.recipe = combo()
        self.recipe.addItems(list(RECIPES))
        self.train = button("Train  (Shift+S)", "train")
        self.pause = button("Pause", "pause")
        self.stop = button("Stop, keep best", "stop")
        self.keep = button("Keep", "keep")
        self.revert = button("Revert", "revert")
        self.save = button("Save model…", "save_model")
        self.folder = button("Open folder", "model_folder")
        self.progress = QLabel("Nothing trained yet.")
        self.verdict = QLabel()
        for label in (self.progress, self.verdict):
            label.setWordWrap(True)
        self.loss = CurvePlot("", "loss", ("loss",), height=86)
        self.iou = CurvePlot("step", "mean IoU", ("unary", "joint"), symbols=True, height=120)
        self.loss.setToolTip(TOOLTIPS["loss_curve"])
        self.iou.setToolTip(TOOLTIPS["iou_curve"])
        self._lay_out()
        self._connect()
        self.set_folder("")
        self.show_running(False)
        self.show_verdict("")

    def _lay_out(self) -> None:
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        outer.setSpacing(2)
        box = QWidget()
        layout = form(box)
        add_row(layout, "Data", self.data, "train_data")
        add_row(layout, "Recipe", self.recipe, "configuration")
        layout.addRow(self.train)
        layout.addRow(row(self.pause, self.stop))
        layout.addRow(self.progress)
        outer.addWidget(box)
        outer.addWidget(self.loss)
        outer.addWidget(self.iou)
        end = QWidget()
        layout = form(end)
        layout.addRow(self.verdict)
        self._verdict_row = row(self.keep, self.revert)
        layout.addRow(self._verdict_row)
        layout.addRow(row(self.save, self.folder))
        outer.addWidget(end)
        outer.addStretch(1)

    def _connect(self) -> None:
        self.data.activated.connect(self._on_data)
        self.train.clicked.connect(self.train_clicked)
        self.pause.clicked.connect(self.pause_clicked)
        self.stop.clicked.connect(self.stop_clicked)
        self.keep.clicked.connect(self.keep_clicked)
        self.revert.clicked.connect(self.revert_clicked)
        self.save.clicked.connect(self.save_clicked)
        self.folder.clicked.connect(self.folder_clicked)

    def set_folder(self, path: str) -> None:
        """Offer a chosen data folder and select it; an empty path selects the painted images."""
        with QSignalBlocker(self.data):
            self.data.clear()
            self.data.addItem(PAINTED, "")
            if path:
                self.data.addItem(path.replace("\\", "/").rstrip("/").rsplit("/", 1)[-1], path)
            self.data.addItem(FOLDER, None)
            self.data.setCurrentIndex(1 if path else 0)

    def chosen_folder(self) -> str:
        """The data folder, or nothing for the painted images."""
        return str(self.data.currentData() or "")

    def start_curves(self) -> None:
        """Empty the curves for a new training."""
        self._loss, self._iou = ([], []), {"unary": ([], []), "joint": ([], [])}
        self._stage, self._offset = "", 0
        self.loss.clear()
        self.iou.clear()

    def add_stage(self, stage: str) -> None:
        """A stage begins: mark it where the last one ended."""
        if self._stage:
            self._offset = int(self._loss[0][-1]) if self._loss[0] else 0
            self.loss.mark(self._offset)
            self.iou.mark(self._offset)
        self._stage = stage

    def add_loss(self, step: int, value: float) -> None:
        """One more step of the present stage."""
        self._loss[0].append(self._offset + step)
        self._loss[1].append(value)
        self.loss.set_data("loss", *self._loss)

    def add_iou(self, stage: str, step: int, value: float) -> None:
        """One more validation."""
        x, y = self._iou[stage]
        x.append(self._offset + step)
        y.append(value)
        self.iou.set_data(stage, x, y)

    def show_running(self, running: bool, *, paused: bool = False) -> None:
        """Enable what makes sense now."""
        self.train.setEnabled(not running)
        self.pause.setEnabled(running)
        self.stop.setEnabled(running)
        self.pause.setText("Resume" if paused else "Pause")

    def show_verdict(self, text: str) -> None:
        """Ask to keep or revert, with a text; an empty one hides the question."""
        self.verdict.setText(text)
        self.verdict.setVisible(bool(text))
        self._verdict_row.setVisible(bool(text))

    def apply_theme(self, name: str) -> None:
        """Recolour the plots."""
        self.loss.apply_theme(name)
        self.iou.apply_theme(name)

    def _on_data(self) -> None:
        if self.data.currentData() is None:
            self.folder_wanted.emit()
