"""The Batch tab's use cases: one model and its settings over a stack or a folder."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject

from napari_deepcrf.plugin import folders
from napari_deepcrf.plugin.batch_marks import BatchMarks, MadeFrom
from napari_deepcrf.plugin.context import Context, Coordinator
from napari_deepcrf.plugin.filling import Filling
from napari_deepcrf.plugin.stack_reader import open_stack
from napari_deepcrf.session import Progress
from napari_deepcrf.session.batch import (
    PlaneDone,
    StackOpened,
    segment_folder,
    segment_stack,
    segment_stack_as_volume,
    volume_bytes,
)

if TYPE_CHECKING:
    from napari_deepcrf.inference.stack import StackLabels
    from napari_deepcrf.models import DeepCRF
    from napari_deepcrf.plugin.panels.batch_panel import BatchPanel
    from napari_deepcrf.session import Job


class Batching(Coordinator):
    """Runs batches in the background; a stack's labels appear in one layer as they come."""

    def __init__(self, context: Context, panel: BatchPanel, parent: QObject) -> None:
        super().__init__(context, parent)
        self._panel = panel
        self._marks = BatchMarks(context, self)
        self._filling: Filling | None = None
        self._cut_short: Filling | None = None
        """What a cancelled run filled: the next one of the same goes on from there."""
        panel.stack_clicked.connect(self.segment_stack)
        panel.width_changed.connect(self._show_choice)
        panel.folder_wanted.connect(self._choose_folder)
        panel.out_wanted.connect(self._choose_out)
        panel.folder_clicked.connect(self._segment_chosen)
        panel.open_clicked.connect(self._open_out)
        for changed in (self.session.image_changed, self.session.model_changed):
            changed.connect(self._show_choice)
        self.session.image_changed.connect(self._look)
        self.follow(self._on_removed, self.viewer.layers.events.removed)
        self._show_choice()
        self.follow_jobs("batch", self._show_job)

    def segment_stack(self) -> None:
        """Segment every plane of the chosen image into one labels layer, the visible one first."""
        self.start(self._stack_job)

    def segment_folder(self, folder: Path, out: Path | None = None) -> None:
        """Segment every image of a folder, or the one that a .zarr folder is.

        Labels go into a folder ``labels``, in it or beside the image, or elsewhere.
        """
        self.start(partial(self._folder_job, folder, out or _labels_of(folder)))

    def receive(self, event: Any) -> None:
        """Show the planes of a stack as they are done."""
        filling = self._filling
        if isinstance(event, Progress):
            note = self._panel.folder_note if filling is None else self._panel.note
            note.setText(event.text)
        elif isinstance(event, StackOpened) and filling is not None:
            layer = filling.open(event)
            self.add_layer(layer)
            self._marks.watch(layer, filling.made_from)
            self._look()
        elif isinstance(event, PlaneDone) and filling is not None and self._sees(event.index):
            filling.refresh()

    def _stack_job(self) -> Job:
        choice, model = self.context.choice, self._model()
        image, plane = choice.layer, choice.plane
        if image is None or plane is None:
            raise ValueError("batch: expected an image, got none")
        device, settings = self.session.device, self.session.settings
        planes, width = open_stack(image), self._panel.planes_width.value()
        made_from = self._marks.made_from(image, model)
        if width and self._panel.planes_width.isEnabled():
            steps = partial(segment_stack_as_volume, planes, model, device, settings, width)
        else:
            earlier = self._stack_of(made_from)
            steps = partial(segment_stack, planes, model, device, settings, plane.leading, earlier)
        job = self.session.job("batch", f"Segmenting all planes of {image.name}", steps)
        self._close()
        names = tuple(model.class_names)
        colours = self.context.colours(names)
        self._filling = Filling(job, names, colours, self._stop, made_from)
        return job

    def _stack_of(self, made_from: MadeFrom) -> StackLabels | None:
        """The planes that a cancelled run of just this had done; a new run copies them."""
        earlier = self._cut_short
        return earlier.stack if earlier is not None and earlier.made_from == made_from else None

    def _look(self, _event: object = None) -> None:
        """Let the plane in view be the next one."""
        choice, filling = self.context.choice, self._filling
        if filling is not None and choice.layer is filling.image and choice.plane is not None:
            filling.look_at(choice.plane.leading)

    def _sees(self, index: tuple[int, ...]) -> bool:
        """Whether the plane may be in view."""
        choice, filling = self.context.choice, self._filling
        if filling is None or choice.layer is not filling.image or choice.plane is None:
            return True  # nobody tells which plane of that image is
        return self.viewer.dims.ndisplay == 3 or index == choice.plane.leading

    def _on_removed(self, event: Any) -> None:
        if self._filling is not None and self._filling.uses(event.value):
            self._stop()
        if self._cut_short is not None and self._cut_short.uses(event.value):
            self._cut_short = None

    def _stop(self, _event: object = None) -> None:
        """What is filled, or what it is filled from, is not there any more."""
        if self._filling is not None:
            self.session.cancel(self._filling.job)
            self.context.runner.cancel("batch")

    def _close(self) -> None:
        if self._filling is not None:
            filling, self._filling = self._filling, None
            filling.close()
            there = all(used in self.viewer.layers for used in (filling.image, filling.layer))
            self._cut_short = filling if filling.cut_short and there else None

    def _folder_job(self, folder: Path, out: Path) -> Job:
        model, device, settings = self._model(), self.session.device, self.session.settings
        kind = self._panel.kind.currentText()
        return self.session.job(
            "batch",
            f"Segmenting {folder.name}",
            lambda: segment_folder(folder, out, model, device, settings, kind=kind),
        )

    def _model(self) -> DeepCRF:
        if self.session.model is None:
            raise ValueError("batch: expected a model, got none")
        return self.session.model

    def _segment_chosen(self) -> None:
        folder, out = self._panel.folders()
        if not folder:
            self.refused.emit("batch: expected a folder of images, got none")
            return
        self.segment_folder(Path(folder), Path(out) if out else None)

    def _choose_folder(self) -> None:
        folder = folders.ask_folder(self._panel, "A folder of images, or a .zarr image")
        if folder:
            self._panel.set_folders(folder, str(_labels_of(Path(folder))))

    def _choose_out(self) -> None:
        out = folders.ask_folder(self._panel, "Where the labels go")
        if out:
            self._panel.set_folders(self._panel.folders()[0], out)

    def _open_out(self) -> None:
        out = Path(self._panel.folders()[1] or ".")
        folders.open_folder(out if out.is_dir() else out.parent)

    def _show_choice(self, _event: object = None) -> None:
        plane, name = self.context.choice.plane, self.session.model_name
        stack = () if plane is None else plane.stack_shape
        self._panel.show_choice(
            [n for n in stack if n > 1],
            Path(name).name or "that is loaded",
        )
        model = self.session.model
        if plane is not None and model is not None and self._panel.planes_width.value():
            shape = (*plane.stack_shape, *plane.source.shape)
            self._panel.show_memory(volume_bytes(shape, len(model.class_names)))

    def _show_job(self, job: Job, running: bool) -> None:
        self._panel.show_running(running)
        if not running and self._filling is not None and self._filling.job is job:
            self._close()


def _labels_of(folder: Path) -> Path:
    """Where labels go if nobody says: never into an image."""
    return (folder.parent if folder.suffix.lower() == ".zarr" else folder) / "labels"
