"""Use cases of the Tools panel: scores from other layers, objects, batches."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QObject
from qtpy.QtWidgets import QFileDialog

from napari_deepcrf.plugin.images import all_planes, label_source, probability_source
from napari_deepcrf.plugin.palette import class_colours, label_colormap
from napari_deepcrf.plugin.qt import Signal
from napari_deepcrf.session.batch import PlaneDone, segment_folder, segment_planes
from napari_deepcrf.session.events import Event
from napari_deepcrf.session.objects import Objects, find_objects

if TYPE_CHECKING:
    from napari.layers import Image, Labels
    from napari.viewer import Viewer

    from napari_deepcrf.plugin.image_choice import ImageChoice
    from napari_deepcrf.plugin.images import Plane
    from napari_deepcrf.plugin.panels.tools_panel import ToolsPanel
    from napari_deepcrf.plugin.workers import Runner
    from napari_deepcrf.session import Result, Session

MAX_CLASSES = 64


class Tools(QObject):
    """Connects the Tools panel with viewer, session and workers."""

    refused = Signal(str)
    segment_wanted = Signal()

    def __init__(
        self,
        viewer: Viewer,
        session: Session,
        runner: Runner,
        choice: ImageChoice,
        panel: ToolsPanel,
        cleanup: ExitStack,
        parent: QObject,
    ) -> None:
        super().__init__(parent)
        self._viewer, self._session, self._runner = viewer, session, runner
        self._choice, self._panel = choice, panel
        self._source: object = None
        self._place: tuple[Image, Plane] | None = None
        self._objects: Labels | None = None
        self._batch: tuple[Image, np.ndarray] | None = None
        self._leading: list[tuple[int, ...]] = []
        panel.source_chosen.connect(self._on_source)
        panel.objects_clicked.connect(self.make_objects)
        panel.object_picked.connect(self._go_to)
        panel.batch_stack.connect(self.segment_stack)
        panel.batch_folder.connect(self._choose_folder)
        session.result_changed.connect(self._on_result)
        for event in (
            viewer.layers.events.inserted,
            viewer.layers.events.removed,
            viewer.layers.events.renamed,
        ):
            event.connect(self._list)
            cleanup.callback(event.disconnect, self._list)
        self._list()

    # ---- scores of other tools ---------------------------------------------------------

    def _list(self, _event: object = None) -> None:
        from napari.layers import Image, Labels

        layers = [
            layer
            for layer in self._viewer.layers
            if "deepcrf" not in layer.metadata
            and (isinstance(layer, Labels) or (isinstance(layer, Image) and _holds_classes(layer)))
        ]
        if self._source is not None and self._source not in layers:
            self._source = None
            self._session.choose_scores(None)
        self._panel.set_sources(layers, [layer.name for layer in layers], self._source)

    def _on_source(self, layer: Any, confidence: float) -> None:
        from napari.layers import Labels

        self._source = layer
        if layer is None:
            self._session.choose_scores(None)
            return
        names, revisions = self._session.class_names, self._choice.revisions
        if isinstance(layer, Labels):
            source = label_source(layer, names, confidence, revisions)
        else:
            source = probability_source(layer, names, revisions)
        self._session.choose_scores(source)
        self.segment_wanted.emit()

    # ---- objects -----------------------------------------------------------------------

    def _on_result(self, result: Result | None) -> None:
        if result is None:
            return
        if self._choice.layer is not None and self._choice.plane is not None:
            self._place = (self._choice.layer, self._choice.plane)
        counts = np.bincount(result.labels.ravel(), minlength=len(result.class_names))
        chosen = int(np.argmax(counts[1:]) + 1) if len(counts) > 1 else 0
        self._panel.set_classes(result.class_names, class_colours(result.class_names), chosen)

    def make_objects(self, class_index: int, minimum: int) -> None:
        """Number the regions of a class of the result, in the background."""
        result = self._session.result
        if result is None:
            self.refused.emit("result: expected a segmented image, got none")
            return

        def steps() -> Iterator[Event]:
            objects = find_objects(result, class_index, minimum)
            yield ObjectsFound(result.class_names[class_index], objects)

        self._runner.submit(self._session.job("objects", "Making objects", steps))

    def _show_objects(self, name: str, objects: Objects) -> None:
        from napari.layers import Labels

        if self._place is None:
            return
        image, plane = self._place
        planes = plane.placement.ndim - 2
        layer = Labels(
            objects.labels.reshape(*(1,) * planes, *objects.labels.shape),
            name=f"{image.name} [{name} objects]",
            features=objects.table,
            metadata={"deepcrf": "objects"},
            **plane.placement.layer_kwargs(),
        )
        self._viewer.add_layer(layer)
        self._objects = layer
        self._panel.show_objects(objects.table)

    def _go_to(self, number: int) -> None:
        """Select an object in its layer and centre the view on it."""
        layer = self._objects
        if layer is None or layer not in self._viewer.layers:
            return
        layer.selected_label = number
        position = np.argwhere(np.asarray(layer.data) == number).mean(axis=0)
        world = np.asarray(layer.data_to_world(position))
        scene = getattr(self._viewer, "scene", self._viewer)  # where napari 0.9 keeps the camera
        scene.camera.center = (0.0, float(world[-2]), float(world[-1]))

    # ---- batches -----------------------------------------------------------------------

    def segment_stack(self) -> None:
        """Segment every plane of the chosen image into one labels layer."""
        image, model = self._choice.layer, self._session.model
        if image is None or model is None:
            self.refused.emit("batch: expected an image and a model, got none")
            return
        planes = all_planes(image, self._choice.revisions)
        shape = (*planes[0].stack_shape, *planes[0].source.shape)
        self._batch = (image, np.zeros(shape, np.uint8))
        self._leading = [plane.leading for plane in planes]
        sources = [plane.source for plane in planes]
        device, settings = self._session.device, self._session.settings
        self._runner.submit(
            self._session.job(
                "batch",
                f"Segmenting {len(sources)} planes",
                lambda: segment_planes(sources, model, device, settings),
            )
        )

    def _choose_folder(self) -> None:
        folder = QFileDialog.getExistingDirectory(self._panel, "A folder of images")
        if folder:
            self.segment_folder(Path(folder))

    def segment_folder(self, folder: Path) -> None:
        """Segment every image of a folder; labels go to ``labels`` inside it."""
        model, device, settings = self._session.model, self._session.device, self._session.settings
        if model is None:
            self.refused.emit("batch: expected a model, got none")
            return
        self._runner.submit(
            self._session.job(
                "batch",
                f"Segmenting {folder.name}",
                lambda: segment_folder(folder, folder / "labels", model, device, settings),
            )
        )

    def receive(self, event: Any) -> None:
        """What the jobs of this panel deliver."""
        if isinstance(event, PlaneDone) and self._batch is not None:
            image, labels = self._batch
            labels[self._leading[event.number]] = event.labels
            if event.number == len(self._leading) - 1:
                self._show_stack(image, labels)
        elif isinstance(event, ObjectsFound):
            self._show_objects(event.class_name, event.objects)

    def _show_stack(self, image: Image, data: np.ndarray) -> None:
        from napari.layers import Labels

        layer: Labels = Labels(
            data,
            name=f"{image.name} [all planes]",
            opacity=0.6,
            scale=image.scale,
            translate=image.translate,
            rotate=image.rotate,
            shear=image.shear,
            affine=image.affine,
            units=image.units,
            axis_labels=image.axis_labels,
            metadata={"deepcrf": "batch"},
        )
        names = self._session.class_names
        layer.colormap = label_colormap(class_colours(names), first=0)
        layer.features = {"index": range(len(names)), "class": list(names)}
        self._viewer.add_layer(layer)
        self._batch = None


@dataclass(frozen=True, eq=False)
class ObjectsFound:
    """The objects of a class."""

    class_name: str
    objects: Objects


def _holds_classes(layer: Image) -> bool:
    """Whether an image layer may hold (classes, y, x) scores."""
    return (
        not layer.rgb
        and layer.ndim == 3
        and 2 <= layer.data.shape[0] <= MAX_CLASSES
        and np.issubdtype(layer.dtype, np.floating)
    )
