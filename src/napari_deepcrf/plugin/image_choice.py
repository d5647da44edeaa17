"""Keeps the session's image in step with the viewer: layers, their data, and the plane shown."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

import numpy as np
from qtpy.QtCore import QObject

from napari_deepcrf.plugin.context import follow
from napari_deepcrf.plugin.images import Plane, Revisions, plane_of
from napari_deepcrf.plugin.qt import Signal

if TYPE_CHECKING:
    from napari.layers import Image
    from napari.viewer import Viewer

    from napari_deepcrf.plugin.panels.source_panel import SourcePanel
    from napari_deepcrf.session import Session


class ImageChoice(QObject):
    """Lists the viewer's image layers, follows the chosen one, and tells the session."""

    layer_changed = Signal(object)  # Image | None
    other_changed = Signal()  # the pixels of an image that was chosen before

    def __init__(
        self,
        viewer: Viewer,
        session: Session,
        panel: SourcePanel,
        cleanup: ExitStack,
        parent: QObject,
    ) -> None:
        super().__init__(parent)
        self._viewer, self._session, self._panel = viewer, session, panel
        self.revisions = Revisions()
        self.layer: Image | None = None
        self.plane: Plane | None = None
        self._watched: list[Any] = []
        self._counted: WeakSet[Image] = WeakSet()
        """Images that were chosen once: their changes count when they are not, too."""
        panel.image_chosen.connect(self.choose)
        layers = viewer.layers.events
        follow(cleanup, self.refresh, layers.inserted, layers.removed, layers.renamed)
        follow(cleanup, self._on_active, viewer.layers.selection.events.active)
        follow(cleanup, self._update_plane, viewer.dims.events.current_step)
        cleanup.callback(self._unwatch)
        cleanup.callback(self._stop_counting)
        self._on_active()
        self.refresh()

    def choose(self, layer: Image | None) -> None:
        """Make this layer the image."""
        if layer is not self.layer:
            self._unwatch()
            self.layer = layer
            if layer is not None:
                if layer not in self._counted:
                    layer.events.data.connect(self._on_data)
                    self._counted.add(layer)
                for name in (
                    "scale",
                    "translate",
                    "rotate",
                    "shear",
                    "affine",
                    "units",
                    "axis_labels",
                ):
                    event = getattr(layer.events, name)
                    event.connect(self._update_plane)
                    self._watched.append(event)
            self.layer_changed.emit(layer)
        self._list()
        self._update_plane()

    def refresh(self, _event: object = None) -> None:
        """List the layers again; a removed image gives way to the last one left."""
        images = self.images()
        if self.layer not in images:
            self.choose(images[-1] if images else None)
        else:
            self._list()

    def images(self) -> list[Image]:
        """Image layers that can be segmented, bottom to top."""
        from napari.layers import Image

        return [
            layer
            for layer in self._viewer.layers
            if isinstance(layer, Image) and layer.ndim >= 2 and "deepcrf" not in layer.metadata
        ]

    def _list(self) -> None:
        images = self.images()
        self._panel.set_images(images, [layer.name for layer in images], self.layer)

    def _on_active(self, _event: object = None) -> None:
        active = self._viewer.layers.selection.active
        if active in self.images():
            self.choose(active)

    def _on_data(self, event: Any) -> None:
        self.revisions.bump(event.source)
        if event.source is self.layer:
            self._update_plane()
        else:
            self.other_changed.emit()

    def _update_plane(self, _event: object = None) -> None:
        layer = self.layer
        if layer is None:
            self.plane = None
            self._session.choose_image(None)
            return
        # the viewer's steps are those of the finest layer on an axis, not of this one
        position = np.round(layer.world_to_data(self._viewer.dims.point)).astype(int)
        self.plane = plane_of(layer, tuple(position.tolist()), self.revisions)
        self._session.choose_image(self.plane.source)

    def _unwatch(self) -> None:
        for event in self._watched:
            event.disconnect(self._update_plane)
        self._watched.clear()

    def _stop_counting(self) -> None:
        for layer in self._counted:
            layer.events.data.disconnect(self._on_data)
        self._counted.clear()
