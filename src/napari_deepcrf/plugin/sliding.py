"""Sliding on all but small images: what is visible first, the whole once the slider rests."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QObject

from napari_deepcrf.plugin.context import Context, Coordinator
from napari_deepcrf.plugin.label_layers import label_layer, on_axes_of, show_classes
from napari_deepcrf.plugin.qt import Signal, single_shot
from napari_deepcrf.plugin.step_runner import StepRunner
from napari_deepcrf.session.region import Region, visible_region

if TYPE_CHECKING:
    from napari.layers import Labels

    from napari_deepcrf.plugin.geometry import Placement
    from napari_deepcrf.plugin.panels.crf_panel import CRFPanel
    from napari_deepcrf.plugin.result_layers import ResultLayers
    from napari_deepcrf.session.events import RegionReady

LARGE = 3_000_000
"""Classes × pixels from which on the whole takes too long to slide: some 0.3 s."""
MOST_PIXELS = 400_000
"""Pixels of a part at most, however many the screen has."""
PART_AFTER_MS, WHOLE_AFTER_MS = 40, 300
TIDY_AFTER_MS = 5000
"""How long the part's layer waits, hidden, for the next slide: to remove one takes napari long."""


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
        self._shown: Labels | None = None
        self._hidden: Any = None
        self._part = single_shot(self, PART_AFTER_MS, self._refine_region)
        self._whole = single_shot(self, WHOLE_AFTER_MS, self._refine_whole)
        self._tidy = single_shot(self, TIDY_AFTER_MS, self._remove)
        self._step_runner = StepRunner(self)
        self.session.region_ready.connect(self._show)
        self.session.result_changed.connect(self._hide)
        self.session.image_changed.connect(self.clear)
        self.follow(self._on_removed, self.viewer.layers.events.removed)
        context.cleanup.callback(self.stop)

    @property
    def is_waiting(self) -> bool:
        """Whether a part or the whole is about to be asked for."""
        timers = self._part.isActive() or self._whole.isActive()
        return timers or self._step_runner.is_waiting

    def slide(self) -> bool:
        """Follow a change of settings; False if the image is small enough to be done at once."""
        if self._region() is None:
            return False
        self._tidy.stop()
        self._part.start()
        self._whole.start()
        return True

    def stop(self) -> None:
        """Stop the timers."""
        for timer in (self._part, self._whole, self._tidy):
            timer.stop()
        self._step_runner.stop()

    def clear(self, _event: object = None) -> None:
        """Take the part away and show the label history again."""
        self._hide()
        self._remove()

    def _hide(self, _event: object = None) -> None:
        self._step_runner.stop()
        if self._shown is not None:
            self._shown.visible = False
            self._tidy.start()
        hidden, self._hidden = self._hidden, None
        if hidden is not None:
            hidden.visible = True

    def _remove(self) -> None:
        self._tidy.stop()
        shown, self._shown = self._shown, None
        if shown is not None and shown in self.viewer.layers:
            self.viewer.layers.remove(shown)

    def _region(self) -> Region | None:
        """What of a large image is visible in the plane; None where the whole is to be done."""
        history, image = self._layers.get("history"), self.session.image
        if history is None or image is None or self.viewer.dims.ndisplay != 2:
            return None
        if image.shape[0] * image.shape[1] * len(self.session.class_names) < LARGE:
            return None
        first, last = np.asarray(history.corner_pixels)[:, -2:]
        scene = getattr(self.viewer, "scene", self.viewer)  # where napari 0.9 keeps the camera
        zoom = scene.camera.zoom * float(np.mean(np.abs(history.scale[-2:])))
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
        self._tidy.stop()
        if self._shown is None:
            self._step_runner.run(self._add(event, placement, f"{image.name} [visible part]"))
            return
        options = placement.layer_kwargs()
        self._shown.data = on_axes_of(placement, event.labels)
        self._shown.scale, self._shown.translate = options["scale"], options["translate"]
        self._shown.visible = True
        self._hide_history()

    def _add(self, event: RegionReady, placement: Placement, name: str) -> Iterator[None]:
        look: dict[str, Any] = {"opacity": 0.6, "visible": False}
        layer = label_layer(event.labels, placement, name=name, role="region", **look)
        names = self.session.class_names
        show_classes(layer, names, self.context.colours(names))
        yield
        self.add_layer(layer)
        self._shown = layer
        yield
        layer.visible = True
        self._hide_history()

    def _hide_history(self) -> None:
        history = self._layers.get("history")
        if history is not None and history.visible:
            history.visible, self._hidden = False, history

    def _on_removed(self, event: Any) -> None:
        if event.value is self._shown:
            self._shown = None
        if event.value is self._hidden:
            self._hidden = None
