"""The Train panel's use cases: start, pause, stop, verdict, save."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, QUrl
from qtpy.QtGui import QDesktopServices
from qtpy.QtWidgets import QFileDialog

from napari_deepcrf.plugin.palette import class_colours, label_colormap
from napari_deepcrf.plugin.qt import Signal
from napari_deepcrf.session.training import PreviewReady, TrainingDone

if TYPE_CHECKING:
    from napari.layers import Labels
    from napari.viewer import Viewer

    from napari_deepcrf.plugin.annotating import Annotating
    from napari_deepcrf.plugin.image_choice import ImageChoice
    from napari_deepcrf.plugin.panels.train_panel import TrainPanel
    from napari_deepcrf.plugin.workers import Runner
    from napari_deepcrf.session.learning import Learning

MODEL_FILTER = "Models (*.safetensors)"


class TrainingControl(QObject):
    """Runs trainings and shows how they go."""

    refused = Signal(str)
    segment_wanted = Signal()

    def __init__(
        self,
        viewer: Viewer,
        learning: Learning,
        runner: Runner,
        choice: ImageChoice,
        annotating: Annotating,
        panel: TrainPanel,
        cleanup: ExitStack,
        parent: QObject,
    ) -> None:
        super().__init__(parent)
        self._viewer, self._learning, self._runner = viewer, learning, runner
        self._choice, self._annotating, self._panel = choice, annotating, panel
        self._preview: Labels | None = None
        self._mean_seconds = 0.0
        panel.train_clicked.connect(self.train)
        panel.folder_wanted.connect(self._choose_folder)
        panel.pause_clicked.connect(self._pause)
        panel.stop_clicked.connect(learning.stop)
        panel.keep_clicked.connect(learning.keep)
        panel.revert_clicked.connect(learning.revert)
        panel.save_clicked.connect(self._save)
        panel.folder_clicked.connect(self._open_folder)
        learning.trained.connect(self._on_trained)
        learning.settled.connect(self._on_settled)
        runner.started.connect(lambda job: self._show_job(job, running=True))
        runner.ended.connect(lambda job: self._show_job(job, running=False))
        removed = viewer.layers.events.removed
        removed.connect(self._on_removed)
        cleanup.callback(removed.disconnect, self._on_removed)

    def train(self) -> None:
        """Start a training on the painted images, or on the folder chosen."""
        folder = self._panel.chosen_folder()
        pairs = [] if folder else self._annotating.pairs()
        try:
            job = self._learning.train(
                pairs, Path(folder) if folder else None, self._panel.recipe.currentText()
            )
        except ValueError as error:
            self.refused.emit(str(error))
            return
        self._panel.start_curves()
        self._panel.show_verdict("")
        self._panel.progress.setText("Preparing…")
        self._mean_seconds = 0.0
        self._runner.submit(job)

    def receive(self, event: Any) -> None:
        """Show an event of the trainer; their names tell them apart, which needs no torch."""
        kind = type(event).__name__
        if kind == "StageStarted":
            self._panel.add_stage(event.stage)
        elif kind == "StepDone":
            self._panel.add_loss(event.step, event.loss)
            self._panel.progress.setText(self._describe(event))
        elif kind == "Validated":
            self._panel.add_iou(event.stage, event.step, event.mean_iou)
        elif isinstance(event, PreviewReady):
            self._show_preview(event)

    def _describe(self, event: Any) -> str:
        weight = 0.1 if self._mean_seconds else 1.0
        self._mean_seconds += weight * (event.seconds - self._mean_seconds)
        left = round(self._mean_seconds * (event.iterations - event.step))
        return (
            f"{event.stage} stage, step {event.step} of {event.iterations}, loss {event.loss:.3f}, "
            f"{left // 60}:{left % 60:02d} min left in this stage"
        )

    def _show_preview(self, event: PreviewReady) -> None:
        plane, image = self._choice.plane, self._choice.layer
        if plane is None or image is None or plane.source.key != event.image_key:
            return
        planes = plane.placement.ndim - 2
        data = event.labels.reshape(*(1,) * planes, *event.labels.shape)
        if self._preview is None:
            from napari.layers import Labels

            self._preview = Labels(
                data,
                name=f"{image.name} [training preview]",
                opacity=0.5,
                metadata={"deepcrf": "preview"},
                **plane.placement.layer_kwargs(),
            )
            self._preview.colormap = label_colormap(
                class_colours(self._learning.classes.names), first=0
            )
            selected = set(self._viewer.layers.selection)
            self._viewer.add_layer(self._preview)
            self._viewer.layers.selection = selected
        else:
            self._preview.data = data

    def _on_trained(self, event: TrainingDone) -> None:
        how = "Stopped early. " if event.stopped else ""
        self._panel.show_verdict(
            f"{how}The trained model is in use on trial. Keep it, or revert to the one before?"
        )
        if self._preview is not None and self._preview in self._viewer.layers:
            self._viewer.layers.remove(self._preview)
        self.segment_wanted.emit()

    def _on_settled(self, kept: bool) -> None:
        self._panel.show_verdict("")
        self._panel.progress.setText(
            "The trained model is kept; save it to use it again." if kept else "Reverted."
        )
        if not kept:
            self.segment_wanted.emit()

    def _show_job(self, job: Any, *, running: bool) -> None:
        if job.kind == "train":
            self._panel.show_running(running)
            if not running and self._panel.progress.text() == "Preparing…":
                self._panel.progress.setText("Nothing trained.")

    def _pause(self) -> None:
        paused = self._runner.toggle_pause("train")
        self._panel.show_running(True, paused=paused)

    def _choose_folder(self) -> None:
        self._panel.set_folder(
            QFileDialog.getExistingDirectory(self._panel, "A VOC folder to train on")
        )

    def _save(self) -> None:
        session = self._learning.session
        if session.model is None:
            self.refused.emit("model: expected a model to save, got none")
            return
        path, _ = QFileDialog.getSaveFileName(self._panel, "Save the model", "", MODEL_FILTER)
        if path:
            self.save(Path(path).with_suffix(".safetensors"))

    def save(self, path: Path) -> None:
        """Write the model in use in the background."""
        self._runner.submit(self._learning.session.save_model(path))

    def _open_folder(self) -> None:
        path = Path(self._learning.session.model_name)
        folder = path.parent if path.is_file() else Path.home()
        QDesktopServices.openUrl(QUrl.fromLocalFile(str(folder)))

    def _on_removed(self, event: Any) -> None:
        if event.value is self._preview:
            self._preview = None
