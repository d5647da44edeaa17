"""Training: data, recipe, live curves, and the verdict afterwards."""

from __future__ import annotations

from collections.abc import Sequence

from qtpy.QtCore import QSignalBlocker, Qt
from qtpy.QtWidgets import QLabel, QListWidget, QListWidgetItem, QVBoxLayout, QWidget

from napari_deepcrf.plugin.curves import CurvePlot
from napari_deepcrf.plugin.panels.form import add_row, button, combo, form, row
from napari_deepcrf.plugin.qt import Signal
from napari_deepcrf.plugin.tooltips import TOOLTIPS

RECIPES = ("scribbles", "compact", "paper")
PAINTED = "Painted images"
FOLDER = "Choose a folder…"
VIEWS = ("before", "after", "changed")
PAIRS_SHOWN, PAIR_HEIGHT = 3, 20


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
    pair_toggled = Signal(object, bool)  # a labels layer, whether to train on it
    view_chosen = Signal(str)  # before, after, changed

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._loss: tuple[list[float], list[float]] = ([], [])
        self._iou: dict[str, tuple[list[float], list[float]]] = {}
        self._stage, self._offset = "", 0
        self.data = combo()
        self.recipe = combo()
        self.recipe.addItems(list(RECIPES))
        self.pairs = QListWidget()
        self.pairs.setToolTip(TOOLTIPS["pairs"])
        self._layers: list[object] = []
        self.train = button("Train  (Shift+S)", "train")
        self.pause = button("Pause", "pause")
        self.stop = button("Stop, keep best", "stop")
        self.keep = button("Keep", "keep")
        self.revert = button("Revert", "revert")
        self.save = button("Save model…", "save_model")
        self.folder = button("Open folder", "model_folder")
        self.progress = QLabel("Nothing trained yet.")
        self.measured_on = QLabel()
        self.verdict, self.changed = QLabel(), QLabel()
        self.views = {name: button(name.capitalize(), f"view_{name}") for name in VIEWS}
        for label in (self.progress, self.measured_on, self.verdict, self.changed):
            label.setWordWrap(True)
        self.loss = CurvePlot("", "loss", ("loss",), height=74)
        self.iou = CurvePlot("step", "mean IoU", ("unary", "joint"), symbols=True, height=124)
        self.iou.share_steps(self.loss)
        self.loss.setToolTip(TOOLTIPS["loss_curve"])
        self.iou.setToolTip(TOOLTIPS["iou_curve"])
        self._lay_out()
        self._connect()
        self.set_folder("")
        self.show_running(False)
        self.show_verdict("")
        self.show_changed(None, "")
        self.show_pairs([])

    def _lay_out(self) -> None:
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        outer.setSpacing(2)
        box = QWidget()
        layout = form(box)
        add_row(layout, "Data", self.data, "train_data")
        layout.addRow(self.pairs)
        add_row(layout, "Recipe", self.recipe, "configuration")
        layout.addRow(self.train)
        layout.addRow(row(self.pause, self.stop))
        layout.addRow(self.progress)
        layout.addRow(self.measured_on)
        # above the curves: a window of a usual height shows the question without scrolling
        layout.addRow(self.verdict)
        self._verdict_row = row(self.keep, self.revert)
        layout.addRow(self._verdict_row)
        layout.addRow(self.changed)
        self._views_row = row(*self.views.values())
        layout.addRow(self._views_row)
        outer.addWidget(box)
        outer.addWidget(self.loss)
        outer.addWidget(self.iou)
        end = QWidget()
        form(end).addRow(row(self.save, self.folder))
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
        self.pairs.itemChanged.connect(self._on_pair)
        for name, view in self.views.items():
            view.setCheckable(True)
            view.clicked.connect(lambda _on, n=name: self.view_chosen.emit(n))

    def set_folder(self, path: str) -> None:
        """Offer a chosen data folder and select it; an empty path selects the painted images."""
        with QSignalBlocker(self.data):
            self.data.clear()
            self.data.addItem(PAINTED, "")
            if path:
                self.data.addItem(path.replace("\\", "/").rstrip("/").rsplit("/", 1)[-1], path)
            self.data.addItem(FOLDER, None)
            self.data.setCurrentIndex(1 if path else 0)
        self._on_data()

    def chosen_folder(self) -> str:
        """The data folder, or nothing for the painted images."""
        return str(self.data.currentData() or "")

    def show_pairs(self, offers: Sequence[tuple[object, str, bool]]) -> None:
        """List labels layers with the images they annotate; ticked ones are trained on."""
        with QSignalBlocker(self.pairs):
            self.pairs.clear()
            self._layers = [layer for layer, _, _ in offers]
            for _, text, used in offers:
                item = QListWidgetItem(text)
                item.setToolTip(text)
                item.setCheckState(Qt.CheckState.Checked if used else Qt.CheckState.Unchecked)
                self.pairs.addItem(item)
        shown = min(max(len(offers), 1), PAIRS_SHOWN)
        self.pairs.setFixedHeight(shown * PAIR_HEIGHT + 8)
        self.pairs.setVisible(bool(offers) and not self.chosen_folder())

    def show_changed(self, share: float | None, image: str) -> None:
        """Say what share of an image's pixels has another class; None takes the views away."""
        text = "" if share is None else f"{100 * share:.1f} % of the pixels of {image} changed:"
        self.changed.setText(text)
        self.changed.setVisible(share is not None)
        self._views_row.setVisible(share is not None)

    def show_view(self, name: str) -> None:
        """Mark which of the views is shown."""
        for view, pressed in self.views.items():
            pressed.setChecked(view == name)

    def start_curves(self) -> None:
        """Empty the curves for a new training."""
        self._loss, self._iou = ([], []), {"unary": ([], []), "joint": ([], [])}
        self._stage, self._offset = "", 0
        self.loss.clear()
        self.iou.clear()

    def steps(self) -> tuple[float, ...]:
        """Steps whose loss is drawn, those of both stages counted through."""
        return tuple(self._loss[0])

    def add_stage(self, stage: str) -> None:
        """A stage begins: mark it where the last one ended, whose best IoU stays to compare."""
        if self._stage:
            self._offset = int(self._loss[0][-1]) if self._loss[0] else 0
            self.loss.mark(self._offset)
            self.iou.mark(self._offset)
            measured = self._iou[self._stage][1]
            if measured:
                self.iou.level(self._stage, max(measured))
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
        self.progress.setVisible(not text)
        self._verdict_row.setVisible(bool(text))

    def apply_theme(self, name: str) -> None:
        """Recolour the plots."""
        self.loss.apply_theme(name)
        self.iou.apply_theme(name)

    def _on_data(self) -> None:
        if self.data.currentData() is None:
            self.folder_wanted.emit()
        self.pairs.setVisible(self.pairs.count() > 0 and not self.chosen_folder())

    def _on_pair(self, item: QListWidgetItem) -> None:
        layer = self._layers[self.pairs.row(item)]
        self.pair_toggled.emit(layer, item.checkState() == Qt.CheckState.Checked)
