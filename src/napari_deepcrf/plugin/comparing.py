"""Old and new model after a training, one over the other: before, after, and what changed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QObject

from napari_deepcrf.plugin.context import Context, Coordinator
from napari_deepcrf.plugin.label_layers import label_layer, on_axes_of, show_classes
from napari_deepcrf.plugin.step_runner import StepRunner
from napari_deepcrf.session.comparison import compare

if TYPE_CHECKING:
    from napari.layers import Labels

    from napari_deepcrf.models import DeepCRF
    from napari_deepcrf.plugin.geometry import Placement
    from napari_deepcrf.plugin.panels.train_panel import TrainPanel
    from napari_deepcrf.session import CRFSettings, Job
    from napari_deepcrf.session.comparison import Comparison

CHANGED_COLOUR = (255, 60, 200)


class Comparing(Coordinator):
    """Segments the image with both models and shows one of the outcomes at a time.

    The layers lie exactly over each other, so that panning and zooming go for all of them.
    """

    def __init__(self, context: Context, panel: TrainPanel, parent: QObject) -> None:
        super().__init__(context, parent)
        self._panel = panel
        self._layers: dict[str, Labels] = {}
        self._leaving: list[Labels] = []
        self._visible: dict[Any, bool] = {}
        self._job: Job | None = None
        self._step_runner = StepRunner(self)
        panel.view_chosen.connect(self.show)
        self.follow(self._on_removed, self.viewer.layers.events.removed)
        context.cleanup.callback(self._step_runner.stop)

    @property
    def is_waiting(self) -> bool:
        """Whether layers are about to come or go."""
        return self._step_runner.is_waiting

    def compare(
        self,
        old: tuple[DeepCRF, CRFSettings],
        new: tuple[DeepCRF, CRFSettings],
        preview: Labels | None,
    ) -> None:
        """Compare two models on the image chosen now, if there is one.

        ``preview`` is a labels layer over that image, which becomes the new model's.
        """
        self.clear()
        image, device = self.session.image, self.session.device
        if preview is not None:
            self._layers["after"] = preview
            preview.visible = False
        if image is None:
            self.clear()
            return

        def make() -> Job:
            steps = lambda: compare(image, old, new, device)  # noqa: E731 - the job's generator
            return self.session.job("compare", "Comparing the models", steps)

        self._job = self.start(make)

    def receive(self, event: Comparison) -> None:
        """Show what the two models make of the image."""
        plane, image = self.context.choice.plane, self.context.choice.layer
        if plane is None or image is None or plane.source.key != event.image_key:
            self.clear()
            return
        self._step_runner.run(self._show(event, image, plane.placement))

    def _show(self, event: Comparison, image: Any, placement: Placement) -> Iterator[None]:
        yield from self._remove()
        changed = event.changed
        for view, labels, names in (
            ("before", event.before, event.before_names),
            ("after", event.after, event.after_names),
            ("changed", changed.astype(np.uint8), ("same", "changed")),
        ):
            name = f"{image.name} [{view}]"
            layer = self._layers.get(view)
            if layer is None:
                layer = label_layer(
                    labels, placement, name=name, role="comparison", opacity=0.6, visible=False
                )
            else:
                layer.data, layer.name = on_axes_of(placement, labels), name
            own = ((0, 0, 0), CHANGED_COLOUR)
            colours = own if view == "changed" else self.context.colours(names)
            show_classes(layer, names, colours)
            yield
            if image not in self.viewer.layers:
                self.clear()
                return
            if view not in self._layers:
                self.add_layer(layer)
                self._layers[view] = layer
                yield
        self._panel.show_changed(float(changed.mean()), image.name)
        self.show("after")

    def show(self, view: str) -> None:
        """Show one of the panel's views; the others, and the result's own labels, are hidden."""
        for other in self.viewer.layers:
            if other.metadata.get("deepcrf") in ("history", "labels"):
                self._visible.setdefault(other, other.visible)
                other.visible = False
        for name, layer in self._layers.items():
            layer.visible = name == view
        self._panel.show_view(view)

    def clear(self) -> None:
        """Take the comparison away, one under way too, and show again what it hid."""
        if self._job is not None:
            self.session.cancel(self._job)
            self._job = None
        layers, self._layers = self._layers, {}
        for layer in layers.values():
            layer.visible = False
        self._leaving += layers.values()
        hidden, self._visible = self._visible, {}
        for other, visible in hidden.items():
            other.visible = visible
        self._panel.show_changed(None, "")
        self._step_runner.run(self._remove())

    def _remove(self) -> Iterator[None]:
        while self._leaving:
            layer = self._leaving.pop()
            if layer in self.viewer.layers:
                self.viewer.layers.remove(layer)
                yield

    def _on_removed(self, event: Any) -> None:
        self._layers = {n: layer for n, layer in self._layers.items() if layer is not event.value}
        self._visible.pop(event.value, None)
