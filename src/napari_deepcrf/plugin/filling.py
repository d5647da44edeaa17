"""The labels layer of a whole stack, from before its first plane is done until the last."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from napari_deepcrf.plugin.geometry import Placement
from napari_deepcrf.plugin.images import spatial_shape
from napari_deepcrf.plugin.label_layers import label_layer, show_classes

if TYPE_CHECKING:
    from napari.layers import Labels

    from napari_deepcrf.inference.stack import StackLabels
    from napari_deepcrf.plugin.batch_marks import MadeFrom
    from napari_deepcrf.plugin.palette import RGB
    from napari_deepcrf.session import Job
    from napari_deepcrf.session.batch import StackOpened


class Filling:
    """What one job fills, and what it is filled from; ``stop`` is called when that changes.

    ``made_from`` tells jobs apart whose planes differ.
    """

    def __init__(
        self,
        job: Job,
        class_names: tuple[str, ...],
        colours: tuple[RGB, ...],
        stop: Callable[..., None],
        made_from: MadeFrom,
    ) -> None:
        self.job, self.image, self.made_from = job, made_from.image, made_from
        self.layer: Labels | None = None
        self._class_names, self._colours, self._stop = class_names, colours, stop
        self.stack: StackLabels | None = None
        """What fills the layer, None where all planes came at once."""
        self.image.events.data.connect(stop)

    def open(self, event: StackOpened) -> Labels:
        """The layer, in the image's place; labels are repeated over its channels."""
        shape, labels = spatial_shape(self.image), event.labels
        layer = label_layer(
            labels if labels.shape == shape else np.broadcast_to(labels, shape),
            Placement.of(self.image),
            name=f"{self.image.name} [all planes]",
            role="batch",
            opacity=0.6,
        )
        show_classes(layer, self._class_names, self._colours)
        layer.editable = False  # what is painted into a plane to come would be lost
        self.layer, self.stack = layer, event.stack
        return layer

    def look_at(self, index: Sequence[int]) -> None:
        """Have this plane done next."""
        if self.stack is not None:
            self.stack.focus(index)

    def refresh(self) -> None:
        """Show what was filled in."""
        if self.layer is not None:
            self.layer.refresh()

    @property
    def cut_short(self) -> bool:
        """Whether some planes are done and others are not."""
        return self.stack is not None and 0 < self.stack.num_done < self.stack.num_planes

    def uses(self, layer: object) -> bool:
        """Whether it is the layer that is filled, or the image."""
        return layer is self.image or (layer is not None and layer is self.layer)

    def close(self) -> None:
        """The job has ended: the layer is the user's."""
        self.image.events.data.disconnect(self._stop)
        if self.layer is not None:
            self.layer.editable = bool(self.layer.data.flags.writeable)
