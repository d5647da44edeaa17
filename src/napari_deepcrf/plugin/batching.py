"""The Batch tab's use cases: one model and its settings over a stack or a folder."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QObject, QUrl
from qtpy.QtGui import QDesktopServices
from qtpy.QtWidgets import QFileDialog

from napari_deepcrf.plugin.context import Context, Coordinator
from napari_deepcrf.plugin.geometry import Placement
from napari_deepcrf.plugin.images import all_planes
from napari_deepcrf.plugin.label_layers import label_layer, show_classes
from napari_deepcrf.session import Progress
from napari_deepcrf.session.batch import PlaneDone, segment_folder, segment_planes

if TYPE_CHECKING:
    from napari.layers import Image

    from napari_deepcrf.models import DeepCRF
    from napari_deepcrf.plugin.panels.batch_panel import BatchPanel
    from napari_deepcrf.session import Job


class Batching(Coordinator):
    """Runs batches in the background and puts a stack's labels into one layer."""

    def __init__(self, context: Context, panel: BatchPanel, parent: QObject) -> None:
        super().__init__(context, parent)
        self._panel = panel
        self._stack: tuple[Image, np.ndarray, list[tuple[int, ...]]] | None = None
        self._class_names: tuple[str, ...] = ()
        panel.stack_clicked.connect(self.segment_stack)
        panel.folder_wanted.connect(self._choose_folder)
        panel.out_wanted.connect(self._choose_out)
        panel.folder_clicked.connect(self._segment_chosen)
        panel.open_clicked.connect(self._open_out)
        for changed in (self.session.image_changed, self.session.model_changed):
            changed.connect(self._show_choice)
        self._show_choice()
        context.runner.started.connect(lambda job: self._show(job, running=True))
        context.runner.ended.connect(lambda job: self._show(job, running=False))

    def segment_stack(self) -> None:
        """Segment every plane of the chosen image into one labels layer."""
        self.start(self._stack_job)

    def segment_folder(self, folder: Path, out: Path | None = None) -> None:
        """Segment every image of a folder; labels go to ``labels`` inside it, or elsewhere."""
        self.start(partial(self._folder_job, folder, out or folder / "labels"))

    def receive(self, event: Any) -> None:
        """Collect the planes of a stack; the layer comes with the last one."""
        if isinstance(event, Progress):
            self._panel.note.setText(event.text)
        if not isinstance(event, PlaneDone) or self._stack is None:
            return
        image, labels, places = self._stack
        labels[places[event.number]] = event.labels
        if event.number == len(places) - 1:
            layer = label_layer(
                labels,
                Placement.of(image),
                name=f"{image.name} [all planes]",
                role="batch",
                opacity=0.6,
            )
            show_classes(layer, self._class_names)
            self.add_layer(layer)
            self._stack = None

    def _stack_job(self) -> Job:
        image, model = self.context.choice.layer, self._model()
        if image is None:
            raise ValueError("batch: expected an image, got none")
        planes = all_planes(image, self.context.choice.revisions)
        labels = np.zeros((*planes[0].stack_shape, *planes[0].source.shape), np.uint8)
        self._stack = image, labels, [plane.leading for plane in planes]
        self._class_names = tuple(model.class_names)
        sources = [plane.source for plane in planes]
        device, settings = self.session.device, self.session.settings
        return self.session.job(
            "batch",
            f"Segmenting {len(sources)} planes",
            lambda: segment_planes(sources, model, device, settings),
        )

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
        folder = QFileDialog.getExistingDirectory(self._panel, "A folder of images")
        if folder:
            self._panel.set_folders(folder, str(Path(folder) / "labels"))

    def _choose_out(self) -> None:
        out = QFileDialog.getExistingDirectory(self._panel, "Where the labels go")
        if out:
            self._panel.set_folders(self._panel.folders()[0], out)

    def _open_out(self) -> None:
        out = Path(self._panel.folders()[1] or ".")
        QDesktopServices.openUrl(QUrl.fromLocalFile(str(out if out.is_dir() else out.parent)))

    def _show_choice(self, _event: object = None) -> None:
        plane, name = self.context.choice.plane, self.session.model_name
        planes = 0 if plane is None else math.prod(plane.stack_shape)
        image = "" if plane is None else plane.source.name
        self._panel.show_choice(image, planes, Path(name).name or "that is loaded")

    def _show(self, job: Job, *, running: bool) -> None:
        if job.kind == "batch":
            self._panel.show_running(running)
