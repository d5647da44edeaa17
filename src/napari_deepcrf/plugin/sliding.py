"""Sliding on all but small images: what is visible first, the whole once the slider rests."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QObject

from napari_deepcrf.plugin.context import Context, Coordinator
from napari_deepcrf.plugin.overlay import Labelling, Overlay
from napari_deepcrf.plugin.qt import Signal, single_shot
from napari_deepcrf.session.region import Region, visible_region

if TYPE_CHECKING:
    from napari.layers import Image

    from napari_deepcrf.plugin.geometry import Placement
    from napari_deepcrf.plugin.panels.crf_panel import CRFPanel
    from napari_deepcrf.plugin.result_layers import ResultLayers
    from napari_deepcrf.session.events import RegionReady

LARGE = 3_000_000
"""Classes × pixels from which on the whole takes too long to slide: some 0.3 s."""
MOST_PIXELS = 400_000
"""Pixels of a part at most, however many the screen has."""
PART_AFTER_MS, WHOLE_AFTER_MS = 40, 300


class Sliding(Coordinator):
    """Refines the visible part while a slider moves, and asks for the whole afterwards.

    The part is shown as a layer of its own in place of the label history, which is out of date
    meanwhile, and is hidden when the whole result is there.
    """

    whole_wanted = Signal()

    def __init__(
        self, context: Context, layers: ResultLayers, panel: CRFPanel, parent: QObject
    ) -> None:
        super().__init__(context, parent)
        self._layers, self._panel = layers, panel
        self._overlay = Overlay(context, "region", self)
        self._owner: Image | None = None
        self._hidden: Any = None
        self._part = single_shot(self, PART_AFTER_MS, self._refine_region)
        self._whole = single_shot(self, WHOLE_AFTER_MS, self._refine_whole)
        self.session.region_ready.connect(self._show)
        self.session.result_changed.connect(self._hide)
        self.session.image_changed.connect(self._turn)
        self.follow(self._on_removed, self.viewer.layers.events.removed)
        context.cleanup.callback(self.stop)

    @property
    def is_waiting(self) -> bool:
        """Whether a part or the whole is about to be asked for."""
        timers = self._part.isActive() or self._whole.isActive()
        return timers or self._overlay.is_waiting

    def slide(self) -> bool:
        """Follow a change of settings; False if the image is small enough to be done at once."""
        if self._region() is None:
            return False
        self._part.start()
        self._whole.start()
        return True

    def stop(self) -> None:
        """Stop the timers."""
        self._part.stop()
        self._whole.stop()

    def prepare(self, image: Image, placement: Placement) -> Iterator[None]:
        """Add the part's layer, hidden, if the image is large: for a `StepRunner`."""
        if self._is_large():
            self._owner = image
            nothing = np.zeros((1, 1), np.uint8)
            yield from self._overlay.prepare(self._labelling(image, nothing, placement))

    def _turn(self, _event: object = None) -> None:
        """Another image, or another of its planes, or other pixels."""
        self._hide()
        if self._owner is not self.context.choice.layer:
            self._overlay.clear()

    def _hide(self, _event: object = None) -> None:
        self._overlay.hide()
        hidden, self._hidden = self._hidden, None
        if hidden is not None:
            hidden.visible = True

    def _is_large(self) -> bool:
        image = self.session.image
        if image is None:
            return False
        return image.shape[0] * image.shape[1] * len(self.session.class_names) >= LARGE

    def _region(self) -> Region | None:
        """What of a large image is visible in the plane; None where the whole is to be done."""
        history, image = self._layers.get("history"), self.session.image
        if history is None or image is None or self.viewer.dims.ndisplay != 2:
            return None
        if not self._is_large():
            return None
        first, last = np.asarray(history.corner_pixels)[:, -2:]
        zoom = self.viewer.scene.camera.zoom * float(np.mean(np.abs(history.scale[-2:])))
        return visible_region(tuple(first), tuple(last), image.shape, 1 / zoom, most=MOST_PIXELS)

    def _refine_region(self) -> None:
        region = self._region()
        if region is not None and self.session.can_refine() and not self.session.fresh:
            self.start(lambda: self.session.refine_region(region))

    def _refine_whole(self) -> None:
        if self._panel.is_sliding() or self.context.runner.is_busy("region"):
            self._whole.start()
        else:
            self.whole_wanted.emit()

    def _show(self, event: RegionReady) -> None:
        plane, image = self.context.choice.plane, self.context.choice.layer
        if plane is None or image is None or plane.source.key != event.identity.image:
            return
        region = event.region
        placement = plane.placement.part(region.top, region.left, region.step)
        self._owner = image
        self._overlay.show(self._labelling(image, event.labels, placement))
        history = self._layers.get("history")
        if history is not None and history.visible:
            history.visible, self._hidden = False, history

    def _labelling(self, image: Image, labels: np.ndarray, placement: Placement) -> Labelling:
        names = self.session.class_names
        colours = self.context.colours(names)
        return Labelling(f"{image.name} [visible part]", labels, placement, names, colours)

    def _on_removed(self, event: Any) -> None:
        if event.value is self._hidden:
            self._hidden = None
