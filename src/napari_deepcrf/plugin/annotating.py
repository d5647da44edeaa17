"""Scribble layers: made, painted on, saved as one goes, and followed live."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pooch
from qtpy.QtCore import QObject

from napari_deepcrf.plugin import preferences
from napari_deepcrf.plugin.autosave import Autosave, Saved, ScribblesFound
from napari_deepcrf.plugin.class_editing import ClassEditing
from napari_deepcrf.plugin.images import Plane, all_planes
from napari_deepcrf.plugin.palette import label_colormap
from napari_deepcrf.plugin.qt import Signal, single_shot
from napari_deepcrf.session.events import Event
from napari_deepcrf.session.training import LabelledImage

if TYPE_CHECKING:
    from napari.layers import Image, Labels
    from napari.viewer import Viewer

    from napari_deepcrf.plugin.image_choice import ImageChoice
    from napari_deepcrf.plugin.panels.annotate_panel import AnnotatePanel
    from napari_deepcrf.plugin.workers import Runner
    from napari_deepcrf.session.learning import Learning

SAVE_AFTER_MS = 400
LIVE_AFTER_MS = 60
AUTOSAVE_FOLDER = Path(pooch.os_cache("napari-deepcrf")) / "scribbles"


class Annotating(QObject):
    """Layer bookkeeping and use cases of the Annotate panel."""

    refused = Signal(str)
    live_wanted = Signal(object)  # Job

    def __init__(
        self,
        viewer: Viewer,
        learning: Learning,
        runner: Runner,
        choice: ImageChoice,
        panel: AnnotatePanel,
        cleanup: ExitStack,
        parent: QObject,
    ) -> None:
        super().__init__(parent)
        self._viewer, self._learning, self._runner = viewer, learning, runner
        self._choice, self._panel = choice, panel
        self._autosave = Autosave(runner, AUTOSAVE_FOLDER)
        self.layer: Labels | None = None
        self._images: dict[Labels, Image] = {}
        self._seen: np.ndarray | None = None
        self._followed: np.ndarray | None = None
        self._watched: list[Any] = []
        self._save_timer = single_shot(self, SAVE_AFTER_MS, self._save)
        self._live_timer = single_shot(self, LIVE_AFTER_MS, self._live)
        self._editing = ClassEditing(learning, panel, self._painted, self)
        panel.live.setChecked(preferences.recall("live"))
        self._connect(cleanup)
        self._list()

    def _connect(self, cleanup: ExitStack) -> None:
        panel, learning = self._panel, self._learning
        panel.annotate_clicked.connect(self.annotate)
        panel.layer_chosen.connect(self.choose)
        panel.class_picked.connect(self._on_picked)
        panel.live_toggled.connect(self._on_live)
        learning.classes.changed.connect(self._show_classes)
        self._editing.refused.connect(self.refused)
        for event in (
            self._viewer.layers.events.inserted,
            self._viewer.layers.events.removed,
            self._viewer.layers.events.renamed,
        ):
            event.connect(self._list)
            cleanup.callback(event.disconnect, self._list)
        cleanup.callback(self.stop)

    # ---- layers ------------------------------------------------------------------------

    def annotate(self) -> None:
        """Make or show the scribble layer of the image and begin to paint."""
        from napari.layers import Labels

        image = self._choice.layer
        if image is None:
            self.refused.emit("image: expected an image to annotate, got none")
            return
        layer = next((own for own, of in self._images.items() if of is image), None)
        if layer is None or layer not in self._viewer.layers:
            data = image.data[0] if image.multiscale else image.data
            layer = Labels(
                np.zeros(tuple(data.shape[: image.ndim]), np.uint8),
                name=f"{image.name} [scribbles]",
                scale=image.scale,
                translate=image.translate,
                rotate=image.rotate,
                shear=image.shear,
                affine=image.affine,
                units=image.units,
                axis_labels=image.axis_labels,
                metadata={"deepcrf": "scribbles"},
            )
            self._viewer.add_layer(layer)
            self._images[layer] = image
            self._autosave.look_up(image, layer)
        self.choose(layer)
        self._viewer.layers.selection.active = layer
        layer.brush_size = max(3, round(min(layer.data.shape[-2:]) / 60))
        layer.mode = "paint"
        self.pick(max(0, self._panel.classes.currentRow()))

    def choose(self, layer: Labels | None) -> None:
        """Learn from this labels layer."""
        if layer is self.layer:
            return
        self._unwatch()
        self.layer = layer
        if layer is not None:
            if layer not in self._images and self._choice.layer is not None:
                self._images[layer] = self._choice.layer
            for event in (layer.events.paint, layer.events.data, layer.events.set_data):
                event.connect(self._on_edit)
                self._watched.append(event)
            self._seen = np.array(layer.data)
            self._show_classes()
        self._list()

    def pairs(self) -> list[LabelledImage]:
        """Every annotated plane of every image that has scribbles."""
        pairs = []
        for layer, image in self._images.items():
            if layer not in self._viewer.layers or image not in self._viewer.layers:
                continue
            data = np.asarray(layer.data)
            for plane in all_planes(image, self._choice.revisions):
                scribbles = data[plane.leading]
                if scribbles.any():
                    pairs.append(LabelledImage(plane.source, np.array(scribbles)))
        return pairs

    def scribbles_of(self, plane: Plane | None) -> np.ndarray | None:
        """A copy of the scribbles on a plane of the chosen image."""
        layer = self.layer
        if layer is None or plane is None or self._images.get(layer) is not self._choice.layer:
            return None
        return np.array(layer.data[plane.leading])

    # ---- classes -----------------------------------------------------------------------

    def pick(self, index: int) -> None:
        """Paint this class from now on."""
        self._panel.pick(index)
        self._on_picked(index)

    def _on_picked(self, index: int) -> None:
        if self.layer is not None and index < len(self._learning.classes):
            self.layer.selected_label = index + 1

    def _painted(self) -> bool:
        return any(np.any(layer.data) for layer in self._images)

    def _show_classes(self) -> None:
        classes = self._learning.classes
        if self.layer is not None:
            self.layer.colormap = label_colormap(classes.colours, first=1)
            self.layer.features = {
                "index": range(1, len(classes) + 1),
                "class": list(classes.names),
            }

    # ---- edits -------------------------------------------------------------------------

    def _on_edit(self, _event: object = None) -> None:
        # a stroke emits `paint`; undo, redo and edits in place only `set_data`, which also
        # comes with every change of slice: the timers' slots compare
        self._save_timer.start()
        if self._panel.live.isChecked():
            self._live_timer.start()

    def _save(self) -> None:
        layer = self.layer
        if layer is None:
            return
        data = np.array(layer.data)
        if self._seen is not None and np.array_equal(data, self._seen):
            return
        self._seen = data
        image, names = self._images.get(layer), self._learning.classes.names
        if image is None:
            return
        self._autosave.save(image, data, names)

    def receive(self, event: Event) -> None:
        """What the autosave jobs tell."""
        if isinstance(event, Saved):
            self._panel.note.setText(f"Scribbles saved at {time.strftime('%H:%M:%S')}.")
        elif isinstance(event, ScribblesFound):
            layer = event.layer
            if not np.any(layer.data) and event.scribbles.shape == layer.data.shape:
                self._editing.set_names(event.class_names)
                if layer is self.layer:
                    self._seen = event.scribbles
                layer.data = event.scribbles.copy()
                self._panel.note.setText("Earlier scribbles of this image are back.")

    # ---- live --------------------------------------------------------------------------

    def _on_live(self, on: bool) -> None:
        preferences.remember("live", on)
        if on:
            self._followed = None
            self._live()
        else:
            self._live_timer.stop()
            self._learning.end_live()

    def _live(self) -> None:
        scribbles = self.scribbles_of(self._choice.plane)
        if scribbles is None:
            return
        if self._followed is not None and np.array_equal(scribbles, self._followed):
            return
        try:
            job = self._learning.live(scribbles)
        except ValueError as error:
            self._panel.note.setText(str(error))
            return
        self._followed = scribbles
        self.live_wanted.emit(job)

    # ---- bookkeeping -------------------------------------------------------------------

    @property
    def is_waiting(self) -> bool:
        """Whether an edit is about to be saved or followed."""
        return bool(self._save_timer.isActive() or self._live_timer.isActive())

    def stop(self) -> None:
        """Stop the timers and let the layers go."""
        self._save_timer.stop()
        self._live_timer.stop()
        self._unwatch()

    def _list(self, _event: object = None) -> None:
        from napari.layers import Labels

        layers = [
            layer
            for layer in self._viewer.layers
            if isinstance(layer, Labels)
            and layer.metadata.get("deepcrf", "scribbles") == "scribbles"
        ]
        self._images = {own: of for own, of in self._images.items() if own in layers}
        if self.layer is not None and self.layer not in layers:
            self._unwatch()
            self.layer = None
        self._panel.set_layers(layers, [layer.name for layer in layers], self.layer)

    def _unwatch(self) -> None:
        for event in self._watched:
            event.disconnect(self._on_edit)
        self._watched.clear()
