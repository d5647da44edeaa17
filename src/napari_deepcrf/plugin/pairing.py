"""Which labels layer annotates which image, and which of these pairs are trained on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QObject

from napari_deepcrf.plugin.context import Context, Coordinator
from napari_deepcrf.plugin.images import annotated_planes, spatial_shape
from napari_deepcrf.plugin.qt import Signal
from napari_deepcrf.session.training import LabelledImage

if TYPE_CHECKING:
    from napari.layers import Image, Labels

    from napari_deepcrf.plugin.images import Revisions


class Pairing(Coordinator):
    """Pairs labels layers with images: as the user chose, else by equal shape.

    Layers that were painted on for us, or chosen to learn from, are trained on; others that would
    fit are offered.
    """

    changed = Signal()

    def __init__(self, context: Context, parent: QObject) -> None:
        super().__init__(context, parent)
        self._images: dict[Labels, Image] = {}
        self._used: set[Labels] = set()
        self.follow_layers(self._on_layers)

    @property
    def layers(self) -> list[Labels]:
        """Labels layers that can be learned from, bottom to top: no results of ours."""
        from napari.layers import Labels

        return [
            layer
            for layer in self.viewer.layers
            if isinstance(layer, Labels)
            and layer.metadata.get("deepcrf", "scribbles") == "scribbles"
        ]

    def assign(self, layer: Labels, image: Image) -> None:
        """Let a layer annotate an image, and train on it."""
        if self._images.get(layer) is not image or layer not in self._used:
            self._images[layer] = image
            self._used.add(layer)
            self.changed.emit()

    def image_of(self, layer: Labels) -> Image | None:
        """The image that a layer annotates: the assigned one, or the topmost of its shape."""
        if layer in self._images:
            return self._images[layer]
        images = reversed(self.context.choice.images())
        return next((image for image in images if spatial_shape(image) == layer.data.shape), None)

    def layer_of(self, image: Image) -> Labels | None:
        """The layer that was assigned to an image."""
        return next((own for own, of in self._images.items() if of is image), None)

    def use(self, layer: Labels, on: bool) -> None:
        """Train on a layer or not."""
        image = self.image_of(layer)
        if on and image is not None:
            self._images[layer] = image
            self._used.add(layer)
        else:
            self._used.discard(layer)

    def offers(self) -> list[tuple[Labels, str, bool]]:
        """Every layer that annotates an image: layer, "image ← labels", whether it is used."""
        offers = []
        for layer in self.layers:
            image = self.image_of(layer)
            if image is not None:
                offers.append((layer, f"{image.name} ← {layer.name}", layer in self._used))
        return offers

    def open_pairs(self) -> Callable[[], list[LabelledImage]]:
        """Copies every annotated plane of the pairs in use, in a worker.

        A stroke that is painted while it copies may be in it.
        """
        used = [(self.image_of(layer), layer.data) for layer in self.layers if layer in self._used]
        pairs = [(image, np.asarray(data)) for image, data in used if image is not None]
        return partial(_read_pairs, pairs, self.context.choice.revisions)

    def is_painted(self) -> bool:
        """Whether any layer in use holds an annotation."""
        return any(np.any(layer.data) for layer in self._used)

    def _on_layers(self, _event: Any = None) -> None:
        present = list(self.viewer.layers)
        self._images = {own: of for own, of in self._images.items() if own in present}
        self._images = {own: of for own, of in self._images.items() if of in present}
        self._used &= set(self._images)
        self.changed.emit()


def _read_pairs(
    pairs: Sequence[tuple[Image, np.ndarray]], revisions: Revisions
) -> list[LabelledImage]:
    return [
        LabelledImage(plane.source, plane.cut(labels))
        for image, labels in pairs
        for plane in annotated_planes(image, revisions, labels)
    ]
