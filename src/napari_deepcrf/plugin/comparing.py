"""What a training does to the image, in one layer: previews, then the old and the new model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QObject

from napari_deepcrf.plugin.context import Context, Coordinator
from napari_deepcrf.plugin.overlay import Labelling, Overlay
from napari_deepcrf.plugin.step_runner import StepRunner
from napari_deepcrf.session.comparison import compare

if TYPE_CHECKING:
    from napari.layers import Image, Labels

    from napari_deepcrf.models import DeepCRF
    from napari_deepcrf.plugin.geometry import Placement
    from napari_deepcrf.plugin.panels.train_panel import TrainPanel
    from napari_deepcrf.session import CRFSettings, Job
    from napari_deepcrf.session.comparison import Comparison

PREVIEW = "training preview"
CHANGED_COLOURS = ((0, 0, 0), (255, 60, 200))
"""Of pixels whose class is the same, and of the others."""


class Comparing(Coordinator):
    """Shows how a training goes, then segments the image with both models and shows the outcomes.

    One layer shows them all, by turns.
    """

    def __init__(self, context: Context, panel: TrainPanel, parent: QObject) -> None:
        super().__init__(context, parent)
        self._panel = panel
        self._overlay = Overlay(context, "comparison", self)
        self._place: tuple[Image, Placement] | None = None
        self._views: dict[str, tuple[np.ndarray, tuple[str, ...]]] = {}
        self._hidden: list[Labels] = []
        self._job: Job | None = None
        self._step_runner = StepRunner(self)
        panel.view_chosen.connect(self.show)
        self.follow(self._on_removed, self.viewer.layers.events.removed)
        context.cleanup.callback(self._step_runner.stop)

    @property
    def is_waiting(self) -> bool:
        """Whether a layer is about to come or go."""
        return self._overlay.is_waiting or self._step_runner.is_waiting

    @property
    def is_comparing(self) -> bool:
        """Whether two models are compared, or are about to be."""
        return self._job is not None

    def prepare(self) -> Iterator[None]:
        """Add the layer, hidden, ahead of a training, beside which that takes twice as long."""
        image, plane = self.context.choice.layer, self.context.choice.plane
        if image is not None and plane is not None and self._place is None:
            self._place = image, plane.placement
            nothing = np.zeros((1, 1), np.uint8)
            yield from self._overlay.prepare(
                self._labelling(PREVIEW, nothing, self.context.classes.names)
            )

    def preview(self, event: Any) -> None:
        """Show a `Preview` of the image chosen now; others are left out."""
        place = self._place_of(event.key)
        if place is not None:
            self._end()
            self._lay(place, PREVIEW, event.labels, self.context.classes.names)

    def compare(self, old: tuple[DeepCRF, CRFSettings], new: tuple[DeepCRF, CRFSettings]) -> None:
        """Compare two models on the image chosen now, if there is one."""
        self._end()
        image, device = self.session.image, self.session.device
        if image is None:
            self.clear()
            return
        self._overlay.hide()

        def make() -> Job:
            steps = lambda: compare(image, old, new, device)  # noqa: E731 - the job's generator
            return self.session.job("compare", "Comparing the models", steps)

        self._job = self.start(make)

    def receive(self, event: Comparison) -> None:
        """Show what the two models make of the image."""
        place = self._place_of(event.image_key)
        if place is None:
            self.clear()
            return
        self._views = {
            "before": (event.before, event.before_names),
            "after": (event.after, event.after_names),
            "changed": (event.changed.view(np.uint8), ("same", "changed")),
        }
        self._panel.show_changed(float(event.changed.mean()), place[0].name)
        self._place = place
        self.show("after")

    def show(self, view: str) -> None:
        """Show one of the panel's views; the result's own labels are hidden."""
        self._step_runner.run(self._show(view))

    def _show(self, view: str) -> Iterator[None]:
        for other in list(self.viewer.layers):
            if other.visible and other.metadata.get("deepcrf") in ("history", "labels"):
                self._hidden.append(other)
                other.visible = False
                yield
        if self._place is not None and view in self._views:
            self._lay(self._place, view, *self._views[view])
            self._panel.show_view(view)

    def clear(self) -> None:
        """Take the layer away, end a comparison under way and show again what it hid."""
        self._end()
        self._place = None
        self._overlay.clear()

    def _end(self) -> None:
        """Show again what a comparison hid, and end one under way."""
        if self._job is not None:
            self.session.cancel(self._job)
        self._job, self._views = None, {}
        self._step_runner.run(self._bring_back())
        self._panel.show_changed(None, "")

    def _bring_back(self) -> Iterator[None]:
        while self._hidden:
            self._hidden.pop().visible = True
            yield

    def _place_of(self, image_key: object) -> tuple[Image, Placement] | None:
        plane, image = self.context.choice.plane, self.context.choice.layer
        if plane is None or image is None or plane.source.key != image_key:
            return None
        return image, plane.placement

    def _lay(
        self,
        place: tuple[Image, Placement],
        title: str,
        labels: np.ndarray,
        names: tuple[str, ...],
    ) -> None:
        self._place = place
        self._overlay.show(self._labelling(title, labels, names))

    def _labelling(self, title: str, labels: np.ndarray, names: tuple[str, ...]) -> Labelling:
        assert self._place is not None
        image, placement = self._place
        colours = CHANGED_COLOURS if title == "changed" else self.context.colours(names)
        return Labelling(f"{image.name} [{title}]", labels, placement, names, colours)

    def _on_removed(self, event: Any) -> None:
        self._hidden = [layer for layer in self._hidden if layer is not event.value]
        if self._place is not None and event.value is self._place[0]:
            self.clear()
