"""Use cases of the Tools panel: scores from other layers, and objects."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QObject

from napari_deepcrf.plugin.context import Context, Coordinator
from napari_deepcrf.plugin.images import spatial_shape
from napari_deepcrf.plugin.label_layers import label_layer
from napari_deepcrf.plugin.qt import Signal
from napari_deepcrf.plugin.score_sources import label_source, probability_source
from napari_deepcrf.plugin.stale_marks import StaleMarks
from napari_deepcrf.session.events import Event
from napari_deepcrf.session.objects import Objects, find_objects

if TYPE_CHECKING:
    from napari.layers import Image, Labels

    from napari_deepcrf.plugin.images import Plane
    from napari_deepcrf.plugin.panels.tools_panel import ToolsPanel
    from napari_deepcrf.session import Job, Result

MAX_CLASSES = 64


class Tools(Coordinator):
    """Connects the Tools panel with viewer, session and workers."""

    segment_wanted = Signal()

    def __init__(self, context: Context, panel: ToolsPanel, parent: QObject) -> None:
        super().__init__(context, parent)
        self._panel = panel
        self._source: object = None
        self._confidence = 0.0
        self._checksum: object = None
        self._watched: list[Any] = []
        self._place: tuple[Image, Plane] | None = None
        self._objects: tuple[Labels, np.ndarray] | None = None
        """The layer of the objects made last, and their centres."""
        self._made_from: dict[Labels, tuple[Image, Result]] = {}
        """What each layer of objects shows, as long as its image is there."""
        self._stale = StaleMarks()
        panel.source_chosen.connect(self._on_source)
        panel.objects_clicked.connect(self.make_objects)
        panel.object_picked.connect(self._go_to)
        self.session.result_changed.connect(self._on_result)
        self.session.identity_changed.connect(self._mark)
        context.choice.other_changed.connect(self._mark)
        self.follow(self._on_removed, self.viewer.layers.events.removed)
        self.follow_layers(self._list)
        context.cleanup.callback(self._unwatch)
        self._list()

    # ---- scores of other tools ---------------------------------------------------------

    def _list(self, _event: object = None) -> None:
        from napari.layers import Image

        layers = [
            layer
            for layer in self.viewer.layers
            if "deepcrf" not in layer.metadata
            and (
                (_is_labels(layer) and layer.ndim == 2)
                or (isinstance(layer, Image) and _holds_classes(layer))
            )
        ]
        if self._source is not None and self._source not in layers:
            self._unwatch()
            self._source = None
            self.session.choose_scores(None)
        self._panel.set_sources(layers, [layer.name for layer in layers], self._source)

    def _on_source(self, layer: Any, confidence: float) -> None:
        self._unwatch()
        self._source, self._confidence = layer, confidence
        if layer is None:
            self.session.choose_scores(None)
            self.segment_wanted.emit()
            return
        for event in (layer.events.data, layer.events.set_data):
            event.connect(self._on_source_edited)
            self._watched.append(event)
        if _is_labels(layer):
            layer.events.paint.connect(self._on_source_edited)
            self._watched.append(layer.events.paint)
        self._checksum = _checksum(layer)
        self._take_source()
        if layer is self.context.choice.layer:  # as the active layer, which a new one is
            self._choose_image_of(layer)
        self.segment_wanted.emit()

    def _choose_image_of(self, scores: Image) -> None:
        """Refine on the topmost image that the scores may be of, not on the scores themselves."""
        choice = self.context.choice
        for image in reversed(choice.images()):
            if not _holds_classes(image) and spatial_shape(image) == scores.data.shape[-2:]:
                choice.choose(image)
                return

    def _on_source_edited(self, _event: object = None) -> None:
        """Other scores: what was refined from the earlier ones is out of date."""
        checksum = _checksum(self._source)  # `set_data` also comes with every change of slice
        if checksum == self._checksum:
            return
        self._checksum = checksum
        self.context.choice.revisions.bump(self._source)
        self._take_source()

    def _take_source(self) -> None:
        layer: Any = self._source
        names, revisions = self.session.class_names, self.context.choice.revisions
        if _is_labels(layer):
            source = label_source(layer, names, self._confidence, revisions)
        else:
            source = probability_source(layer, names, revisions)
        self.session.choose_scores(source)

    def _unwatch(self) -> None:
        for event in self._watched:
            event.disconnect(self._on_source_edited)
        self._watched.clear()

    # ---- objects -----------------------------------------------------------------------

    def _on_result(self, result: Result | None) -> None:
        if result is None:
            return
        if self.context.choice.layer is not None and self.context.choice.plane is not None:
            self._place = (self.context.choice.layer, self.context.choice.plane)
        names, chosen = result.class_names, result.largest_class
        self._panel.set_classes(names, self.context.colours(names), chosen)

    def make_objects(self, class_index: int, minimum: int) -> None:
        """Number the regions of a class of the result, in the background."""
        self.start(partial(self._objects_job, class_index, minimum))

    def _objects_job(self, class_index: int, minimum: int) -> Job:
        result, place = self.session.result, self._place
        if result is None or place is None:
            raise ValueError("result: expected a segmented image, got none")

        def steps() -> Iterator[Event]:
            yield ObjectsFound(
                result, *place, class_index, find_objects(result, class_index, minimum)
            )

        return self.session.job("objects", "Making objects", steps)

    def _go_to(self, number: int) -> None:
        """Select an object in its layer and centre the view on it."""
        layer, centres = self._objects or (None, None)
        if layer is None or centres is None or layer not in self.viewer.layers:
            return
        layer.selected_label = number
        position = (*(0,) * (layer.ndim - 2), *centres[number - 1])
        world = np.asarray(layer.data_to_world(position))
        self.viewer.scene.camera.center = (0.0, float(world[-2]), float(world[-1]))

    def receive(self, event: ObjectsFound) -> None:
        """Show the objects that a job found."""
        image = event.image
        if image not in self.viewer.layers:
            return
        layer = label_layer(
            event.objects.labels,
            event.plane.placement,
            name=f"{image.name} [{event.result.class_names[event.class_index]} objects]",
            role="objects",
            features=event.objects.table,
        )
        self.viewer.add_layer(layer)
        self._objects = layer, event.objects.centres
        self._made_from[layer] = image, event.result
        self._mark()
        self._panel.show_objects(event.objects.table)

    def _mark(self) -> None:
        """Tell objects of results that are out of date from those that are not."""
        for layer, (image, result) in self._made_from.items():
            self._stale.mark(layer, fresh=self.context.is_fresh(image, result))

    def _on_removed(self, event: Any) -> None:
        self._made_from.pop(event.value, None)
        for layer, (image, _) in list(self._made_from.items()):
            if image is event.value:
                del self._made_from[layer]
                self._stale.mark(layer, fresh=False)


@dataclass(frozen=True, eq=False)
class ObjectsFound:
    """The objects of a class of a result, on a plane of an image."""

    result: Result
    image: Image
    plane: Plane
    class_index: int
    objects: Objects


def _checksum(layer: Any) -> object:
    """Tells edited labels from others; another tool's probabilities are not edited in place."""
    if not _is_labels(layer):
        return id(layer.data)
    return zlib.crc32(np.ascontiguousarray(layer.data).data)


def _is_labels(layer: object) -> bool:
    from napari.layers import Labels

    return isinstance(layer, Labels)


def _holds_classes(layer: Image) -> bool:
    """Whether an image layer may hold (classes, y, x) scores."""
    return (
        not layer.rgb
        and layer.ndim == 3
        and 2 <= layer.data.shape[0] <= MAX_CLASSES
        and np.issubdtype(layer.dtype, np.floating)
    )
