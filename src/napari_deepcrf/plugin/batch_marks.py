"""Labels of a whole stack or of tiles: out of date when image, model or settings are others."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from qtpy.QtCore import QObject

from napari_deepcrf.plugin.context import Context, follow
from napari_deepcrf.plugin.stale_marks import StaleMarks

if TYPE_CHECKING:
    from napari.layers import Image, Labels

    from napari_deepcrf.models import DeepCRF
    from napari_deepcrf.session import CRFSettings


@dataclass(frozen=True)
class MadeFrom:
    """What a batch began with; equal ones make equal labels."""

    image: Image
    pixels: Hashable
    """Number of the image and revision of its data."""
    model: DeepCRF
    settings: CRFSettings


class BatchMarks(QObject):
    """Marks the layers that it was given as out of date while a batch would make others."""

    def __init__(self, context: Context, parent: QObject) -> None:
        super().__init__(parent)
        self._context, self._stale = context, StaleMarks()
        self._made_from: WeakKeyDictionary[Labels, MadeFrom] = WeakKeyDictionary()
        context.session.identity_changed.connect(self.mark)
        context.choice.other_changed.connect(self.mark)
        follow(context.cleanup, self.mark, context.viewer.layers.events.removed)

    def made_from(self, image: Image, model: DeepCRF) -> MadeFrom:
        """What a batch of an image begins with now."""
        pixels = self._context.choice.revisions.key(image)
        return MadeFrom(image, pixels, model, self._context.session.settings)

    def watch(self, layer: Labels, made_from: MadeFrom) -> None:
        """Mark this layer from now on."""
        self._made_from[layer] = made_from
        self.mark()

    def mark(self, _event: object = None) -> None:
        """Tell layers that are out of date from those that are not."""
        fresh = {layer: self._is_fresh(made) for layer, made in self._made_from.items()}
        for layer in sorted(fresh, key=fresh.__getitem__):  # a name is given up before it is taken
            self._stale.mark(layer, fresh=fresh[layer])
            if self._made_from[layer].image not in self._context.viewer.layers:
                del self._made_from[layer]  # out of date for good

    def _is_fresh(self, made_from: MadeFrom) -> bool:
        image, model = made_from.image, self._context.session.model
        if model is None or image not in self._context.viewer.layers:
            return False
        return made_from == self.made_from(image, model)
