"""A labels layer of ours over the image: made once, filled anew, hidden between."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject

from napari_deepcrf.plugin.context import Context, Coordinator
from napari_deepcrf.plugin.label_layers import (
    label_layer,
    on_axes_of,
    refill,
    show_classes,
)
from napari_deepcrf.plugin.step_runner import StepRunner

if TYPE_CHECKING:
    import numpy as np
    from napari.layers import Labels

    from napari_deepcrf.plugin.geometry import Placement
    from napari_deepcrf.plugin.palette import RGB


@dataclass(frozen=True, eq=False)
class Labelling:
    """What an overlay shows."""

    name: str
    labels: np.ndarray
    """(H, W) indices of classes."""
    placement: Placement
    class_names: tuple[str, ...]
    colours: tuple[RGB, ...]


class Overlay(Coordinator):
    """One layer for whatever is to be seen for a while: to add or remove one takes napari long.

    It is added hidden, shown in another turn of the event loop, and removed in one of its own.
    """

    def __init__(self, context: Context, role: str, parent: QObject) -> None:
        super().__init__(context, parent)
        self.layer: Labels | None = None
        self._role = role
        self._placed: dict[str, Any] = {}
        self._leaving: list[Labels] = []
        self._step_runner = StepRunner(self)
        self.follow(self._on_removed, self.viewer.layers.events.removed)
        context.cleanup.callback(self._step_runner.stop)

    @property
    def is_waiting(self) -> bool:
        """Whether a layer is about to come or go."""
        return self._step_runner.is_waiting

    def show(self, shown: Labelling) -> None:
        """Show this, at once if the layer is there."""
        if self._fits(shown.placement):
            self._step_runner.run(self._remove())
            self._fill(shown)
        else:
            self._step_runner.run(self._show(shown))

    def hide(self) -> None:
        """Hide the layer until it is filled anew."""
        self._step_runner.run(self._remove())
        if self.layer is not None:
            self.layer.visible = False

    def clear(self) -> None:
        """Take the layer away."""
        self._put_away()
        self._step_runner.run(self._remove())

    def prepare(self, shown: Labelling) -> Iterator[None]:
        """Add the layer, hidden, if it is not there: a generator, as for `StepRunner`."""
        if self._fits(shown.placement):
            return
        self._put_away()
        yield from self._remove()
        layer = label_layer(
            shown.labels,
            shown.placement,
            name=shown.name,
            role=self._role,
            opacity=0.6,
            visible=False,
        )
        yield
        if self.layer is None:  # it may have come meanwhile
            self.add_layer(layer)
            self.layer, self._placed = layer, shown.placement.layer_kwargs()
            yield

    def _show(self, shown: Labelling) -> Iterator[None]:
        yield from self.prepare(shown)
        self._fill(shown)

    def _fits(self, placement: Placement) -> bool:
        return self.layer is not None and self.layer.ndim == placement.ndim

    def _fill(self, shown: Labelling) -> None:
        layer = self.layer
        if layer is None:
            return
        before, self._placed = self._placed, shown.placement.layer_kwargs()
        refill(layer, on_axes_of(shown.placement, shown.labels), self._placed, before)
        show_classes(layer, shown.class_names, shown.colours)
        if layer.name != shown.name:
            layer.name = shown.name
        layer.visible = True

    def _put_away(self) -> None:
        layer, self.layer = self.layer, None
        if layer is not None:
            layer.visible = False
            self._leaving.append(layer)

    def _remove(self) -> Iterator[None]:
        while self._leaving:
            layer = self._leaving.pop()
            if layer in self.viewer.layers:
                self.viewer.layers.remove(layer)
                yield

    def _on_removed(self, event: Any) -> None:
        if event.value is self.layer:
            self.layer = None
