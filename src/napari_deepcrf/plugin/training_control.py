"""The Train panel's use cases: start, pause, stop, verdict, save."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject

from napari_deepcrf.plugin import folders
from napari_deepcrf.plugin.comparing import Comparing
from napari_deepcrf.plugin.context import Context, Coordinator
from napari_deepcrf.plugin.qt import Signal
from napari_deepcrf.plugin.step_runner import StepRunner
from napari_deepcrf.session import Progress
from napari_deepcrf.session.comparison import Comparison
from napari_deepcrf.session.training import TrainingDone

if TYPE_CHECKING:
    from napari_deepcrf.models import DeepCRF
    from napari_deepcrf.plugin.annotating import Annotating
    from napari_deepcrf.plugin.panels.train_panel import TrainPanel
    from napari_deepcrf.session import CRFSettings, Job
    from napari_deepcrf.session.learning import Learning

SUFFIX = ".safetensors"
QUESTION = "The trained model is in use on trial. Keep it, or revert to the one before?"


class TrainingControl(Coordinator):
    """Runs trainings and shows how they go."""

    segment_wanted = Signal()

    def __init__(
        self,
        context: Context,
        learning: Learning,
        annotating: Annotating,
        panel: TrainPanel,
        parent: QObject,
    ) -> None:
        super().__init__(context, parent)
        self._learning, self._annotating, self._panel = learning, annotating, panel
        self._comparing = Comparing(context, panel, self)
        self._step_runner = StepRunner(self)
        self._before: tuple[DeepCRF, CRFSettings] | None = None
        self._question = QUESTION
        self._mean_seconds = 0.0
        self._paused = False
        self._saved: Path | None = None
        self._connect()

    def _connect(self) -> None:
        panel, learning = self._panel, self._learning
        panel.train_clicked.connect(self.train)
        panel.folder_wanted.connect(self._choose_folder)
        panel.pause_clicked.connect(self.pause)
        panel.stop_clicked.connect(self.stop)
        panel.keep_clicked.connect(learning.keep)
        panel.revert_clicked.connect(learning.revert)
        panel.save_clicked.connect(self.choose_file)
        panel.folder_clicked.connect(self._open_folder)
        learning.trained.connect(self._on_trained)
        learning.settled.connect(self._on_settled)
        self.follow_jobs("train", self._show_job)
        self.context.cleanup.callback(self._step_runner.stop)
        self._comparing.refused.connect(self.refused)
        self._annotating.pairs_changed.connect(panel.show_pairs)
        panel.pair_toggled.connect(self._annotating.pairing.use)
        panel.show_pairs(self._annotating.pairing.offers())

    @property
    def is_waiting(self) -> bool:
        """Whether layers are about to come or go."""
        return self._comparing.is_waiting or self._step_runner.is_waiting

    def train(self) -> None:
        """Start a training on the painted images, or on the folder chosen."""
        job = self.make(self._train_job)
        if job is None:
            return
        self._panel.start_curves()
        self._panel.show_verdict("")
        self._panel.progress.setText("Preparing…")
        self._mean_seconds = 0.0
        self._step_runner.run(self._begin(job))

    def _begin(self, job: Job) -> Iterator[None]:
        yield from self._comparing.prepare()
        self.context.runner.submit(job)

    def _train_job(self) -> Job:
        folder = self._panel.chosen_folder()
        pairing = self._annotating.pairing
        pairs = None if folder or not pairing.is_painted() else pairing.open_pairs()
        recipe = self._panel.recipe.currentText()
        job = self._learning.train(pairs, Path(folder) if folder else None, recipe)
        session = self.session
        if not self._learning.on_trial and session.model is not None:
            self._before = session.model, session.settings
        return job

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
        elif kind == "Preview":
            self._comparing.preview(event)
        elif isinstance(event, Comparison):
            self._comparing.receive(event)
        elif isinstance(event, Progress):
            self._panel.measured_on.setText(event.text)

    def _describe(self, event: Any) -> str:
        weight = 0.1 if self._mean_seconds else 1.0
        self._mean_seconds += weight * (event.seconds - self._mean_seconds)
        left = round(self._mean_seconds * (event.iterations - event.step))
        return (
            f"{event.stage} stage, step {event.step} of {event.iterations}, loss {event.loss:.3f}, "
            f"{left // 60}:{left % 60:02d} min left in this stage"
        )

    def _on_trained(self, event: TrainingDone) -> None:
        how = "Stopped early. " if event.stopped else ""
        self._question = f"{how}{QUESTION}"
        self._panel.show_verdict(self._question)
        if self._before is not None:
            self._comparing.compare(self._before, (event.model, self.session.settings))
        # napari's activity dock lets events in, the end of the training's worker among them
        self.segment_wanted.emit()

    def _on_settled(self, kept: bool) -> None:
        self._comparing.clear()
        self._panel.show_verdict("")
        self._panel.progress.setText(
            "The trained model is kept; save it to use it again." if kept else "Reverted."
        )
        if not kept:
            self.segment_wanted.emit()

    def _show_job(self, _job: Job, running: bool) -> None:
        self._paused = False
        self._panel.show_running(running)
        if not running:
            if not self._comparing.is_comparing:  # the preview goes
                self._comparing.clear()
            if self._learning.on_trial:  # also after another training that was cancelled
                self._panel.show_verdict(self._question)
            else:
                self._panel.progress.setText("Nothing trained.")

    def pause(self) -> None:
        """Hold the running training after its present step, or let it go on."""
        if not self._is_running():
            return
        self._paused = self.context.runner.toggle_pause("train")
        self._panel.show_running(True, paused=self._paused)

    def stop(self) -> None:
        """End the running training and keep its best state."""
        if not self._is_running():
            return
        self._learning.stop()
        if self._paused:  # a training that is held does not look
            self.pause()

    def settle(self, *, keep: bool) -> None:
        """Keep the model on trial, or go back to the one before."""
        if not self._learning.on_trial:
            self.refused.emit("model: expected a trained one on trial, got none")
        elif keep:
            self._learning.keep()
        else:
            self._learning.revert()

    def _is_running(self) -> bool:
        running = self.context.runner.is_busy("train")
        if not running:
            self.refused.emit("training: expected one that runs, got none")
        return running

    def _choose_folder(self) -> None:
        title = "A VOC folder, or one with images and labels"
        self._panel.set_folder(folders.ask_folder(self._panel, title))

    def choose_file(self) -> None:
        """Ask where to save the model in use, and save it."""
        given = folders.ask_where_to_save_model(self._panel)
        if not given:
            return
        path = Path(given if given.endswith(SUFFIX) else f"{given}{SUFFIX}")
        if path.name != Path(given).name and path.exists():
            # the dialog asked whether to replace the name without its ending
            self.refused.emit(f"model: expected a new name, got {path.name}, which is there")
        else:
            self.save(path)

    def save(self, path: Path) -> None:
        """Write the model in use in the background."""
        self._saved = path
        self.start(partial(self.session.save_model, path))

    def _open_folder(self) -> None:
        """That of the model's file, of the file it was saved to, or the user's own."""
        places = (Path(self.session.model_name), self._saved)
        found = [path.parent for path in places if path is not None and path.is_file()]
        folders.open_folder(found[0] if found else Path.home())
