"""Scribble layers: made, painted on, saved as one goes, and followed live."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import platformdirs
from qtpy.QtCore import QObject

from napari_deepcrf.plugin import preferences
from napari_deepcrf.plugin.autosave import Autosave, Saved, ScribblesFound
from napari_deepcrf.plugin.class_editing import ClassEditing
from napari_deepcrf.plugin.context import Context, Coordinator
from napari_deepcrf.plugin.geometry import Placement
from napari_deepcrf.plugin.images import Plane, spatial_shape
from napari_deepcrf.plugin.label_layers import label_layer, show_classes
from napari_deepcrf.plugin.pairing import Pairing
from napari_deepcrf.plugin.qt import Signal, single_shot
from napari_deepcrf.session.events import Event

if TYPE_CHECKING:
    from napari.layers import Image, Labels

    from napari_deepcrf.plugin.panels.annotate_panel import AnnotatePanel
    from napari_deepcrf.session.learning import Learning

SAVE_AFTER_MS = 400
LIVE_AFTER_MS = 60
PREPARED_PIXELS = 4_000_000
"""Live mode is prepared unasked for on images of so many pixels at most: it takes their memory."""
AUTOSAVE_FOLDER = Path(platformdirs.user_data_path("napari-deepcrf", appauthor=False)) / "scribbles"
"""No cache: systems empty those."""


class Annotating(Coordinator):
    """Layer bookkeeping and use cases of the Annotate panel."""

    live_wanted = Signal(object)  # Job
    pairs_changed = Signal(list)  # of (layer, text, whether it is trained on)

    def __init__(
        self, context: Context, learning: Learning, panel: AnnotatePanel, parent: QObject
    ) -> None:
        super().__init__(context, parent)
        self._learning, self._panel = learning, panel
        self._autosave = Autosave(context.runner, AUTOSAVE_FOLDER)
        self.pairing = Pairing(context, self)
        self.layer: Labels | None = None
        self._followed: np.ndarray | None = None
        self._watched: list[Any] = []
        self._save_timer = single_shot(self, SAVE_AFTER_MS, self._save)
        self._live_timer = single_shot(self, LIVE_AFTER_MS, self._live)
        self._editing = ClassEditing(learning, panel, self.pairing.is_painted, self)
        panel.live.setChecked(preferences.recall("live"))
        self._connect()
        self._list()

    def _connect(self) -> None:
        panel, learning = self._panel, self._learning
        panel.annotate_clicked.connect(self.annotate)
        panel.layer_chosen.connect(self.choose)
        panel.class_picked.connect(self._on_picked)
        panel.live_toggled.connect(self._on_live)
        learning.classes.changed.connect(self._show_classes)
        self._editing.refused.connect(self.refused)
        self.pairing.changed.connect(self._list)
        self.context.cleanup.callback(self.stop)

    # ---- layers ------------------------------------------------------------------------

    def annotate(self) -> None:
        """Make or show the scribble layer of the image and begin to paint."""
        image = self.context.choice.layer
        if image is None:
            self.refused.emit("image: expected an image to annotate, got none")
            return
        layer = self.pairing.layer_of(image) or self._new_layer(image)
        self.choose(layer)
        self.viewer.layers.selection.active = layer
        layer.brush_size = max(3, round(min(layer.data.shape[-2:]) / 60))
        layer.mode = "paint"
        self.pick(max(0, self._panel.classes.currentRow()))
        self._prepare_live()

    def _new_layer(self, image: Image) -> Labels:
        layer = label_layer(
            np.zeros(spatial_shape(image), np.uint8),
            Placement.of(image),
            name=f"{image.name} [scribbles]",
            role="scribbles",
        )
        self.viewer.add_layer(layer)
        self.pairing.assign(layer, image)
        self._autosave.adopt(image, layer)
        return layer

    def choose(self, layer: Labels | None) -> None:
        """Learn from this labels layer."""
        if layer is self.layer:
            return
        self._unwatch()
        self.layer = layer
        if layer is not None:
            image = self.pairing.image_of(layer) or self.context.choice.layer
            if image is not None:
                self.pairing.assign(layer, image)
            for event in (layer.events.paint, layer.events.data, layer.events.set_data):
                event.connect(self._on_edit)
                self._watched.append(event)
            self._show_classes()
        self._list()

    def scribbles_of(self, plane: Plane | None) -> np.ndarray | None:
        """A copy of the scribbles on a plane of the chosen image."""
        layer = self.layer
        if layer is None or plane is None:
            return None
        if self.pairing.image_of(layer) is not self.context.choice.layer:
            return None
        return plane.cut(layer.data)

    # ---- classes -----------------------------------------------------------------------

    def pick(self, index: int) -> None:
        """Paint this class from now on."""
        self._panel.pick(index)
        self._on_picked(index)

    def _on_picked(self, index: int) -> None:
        if self.layer is not None and index < len(self._learning.classes):
            self.layer.selected_label = index + 1

    def _show_classes(self) -> None:
        classes = self._learning.classes
        if self.layer is not None:
            show_classes(self.layer, classes.names, classes.colours, first=1)
            if self._autosave.mark(self.layer):  # another name or colour is worth saving, too
                self._save_timer.start()

    # ---- edits -------------------------------------------------------------------------

    def _on_edit(self, _event: object = None) -> None:
        # a stroke emits `paint`; undo, redo and edits in place only `set_data`, which also
        # comes with every change of slice: the timers' slots compare
        if self.layer is not None and self._autosave.mark(self.layer):
            self._save_timer.start()
        if self._panel.live.isChecked():
            self._live_timer.start()

    def _save(self) -> None:
        self._autosave.save(tuple(self._learning.classes))

    def receive(self, event: Event) -> None:
        """What the autosave jobs tell."""
        if isinstance(event, Saved):
            self._panel.note.setText(f"Scribbles saved at {time.strftime('%H:%M:%S')}.")
        elif isinstance(event, ScribblesFound):
            layer = event.layer
            if not np.any(layer.data) and event.scribbles.shape == layer.data.shape:
                self._editing.set_classes(event.classes)
                layer.data = event.scribbles
                self._panel.note.setText("Earlier scribbles of this image are back.")

    # ---- live --------------------------------------------------------------------------

    def _on_live(self, on: bool) -> None:
        preferences.remember("live", on)
        if on:
            self._followed = None
            self._live()
        else:
            self._live_timer.stop()
            self._panel.show_live("")
            self._learning.end_live()

    def _live(self) -> None:
        scribbles = self.scribbles_of(self.context.choice.plane)
        if scribbles is None:
            return
        if self._followed is not None and np.array_equal(scribbles, self._followed):
            return
        self._followed = scribbles
        try:
            job = self._learning.live(scribbles)
        except ValueError as error:
            # what is shown was fitted to strokes that are there no more
            self._learning.end_live()
            self._panel.show_live(str(error))
            self._prepare_live()
        else:
            self._panel.show_live("")
            self.live_wanted.emit(job)

    def _prepare_live(self) -> None:
        """Have ready what the first strokes need, whether they are to be followed or not yet."""
        image = self.session.image
        small = image is not None and image.shape[0] * image.shape[1] <= PREPARED_PIXELS
        if small and not self.context.runner.is_busy("segment", "refine", "features", "live"):
            self.start(self._learning.prepare_live)

    # ---- bookkeeping -------------------------------------------------------------------

    @property
    def is_waiting(self) -> bool:
        """Whether an edit is about to be saved or followed."""
        return bool(self._save_timer.isActive() or self._live_timer.isActive())

    def stop(self) -> None:
        """Save what was painted last, stop the timers and let the layers go."""
        self._save_timer.stop()
        self._live_timer.stop()
        self._unwatch()
        try:
            self._autosave.flush(tuple(self._learning.classes))
        except OSError as error:
            self.refused.emit(f"scribbles: not saved, {error}")

    def _list(self) -> None:
        layers = self.pairing.layers
        if self.layer is not None and self.layer not in layers:
            self._unwatch()
            self.layer = None
        self._panel.set_layers(layers, [layer.name for layer in layers], self.layer)
        self.pairs_changed.emit(self.pairing.offers())

    def _unwatch(self) -> None:
        for event in self._watched:
            event.disconnect(self._on_edit)
        self._watched.clear()
