"""Class and probability under the mouse, in napari's status bar."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_deepcrf.plugin.context import follow

if TYPE_CHECKING:
    from napari.viewer import Viewer

    from napari_deepcrf.plugin.result_layers import ResultLayers
    from napari_deepcrf.session import Session

SEPARATOR = "  ▏"


class Readout:
    """Adds "cat 0.93" to what napari shows of the cursor's position.

    napari writes its own text from a thread of its own; this follows the viewer's status event
    and adds to the text, once.
    """

    def __init__(
        self, viewer: Viewer, session: Session, layers: ResultLayers, cleanup: ExitStack
    ) -> None:
        self._viewer, self._session, self._layers = viewer, session, layers
        follow(cleanup, self._on_status, viewer.events.status)
        session.freshness_changed.connect(self._renew)

    def text(self) -> str:
        """Class and probability at the cursor in the update shown; empty outside."""
        result, history = self._session.result, self._layers.get("history")
        if result is None or history is None:
            return ""
        position = np.asarray(history.world_to_data(self._viewer.cursor.position))
        index = np.round(position).astype(int)
        update, row, column = int(index[0]), int(index[-2]), int(index[-1])
        shape = result.history.shape
        inside = all(0 <= i < n for i, n in zip((update, row, column), shape, strict=True))
        on_plane = not index[1:-2].any()  # a stack's other planes have no result
        if not (inside and on_plane):
            return ""
        label = int(result.history[update, row, column])
        probability = result.probability(label, update, row, column)
        number = "" if probability is None else f" {probability:.2f}"
        stale = "" if self._session.fresh else " (out of date)"
        return f"{result.class_names[label]}{number}{stale}"

    def _on_status(self, _event: Any) -> None:
        status = self._viewer.status
        if not isinstance(status, dict) or SEPARATOR in status.get("coordinates", ""):
            return
        text = self.text()
        if text:
            coordinates = status.get("coordinates", "")
            self._viewer.status = {**status, "coordinates": f"{coordinates}{SEPARATOR}{text}"}

    def _renew(self, _fresh: bool) -> None:
        """Tell anew under a mouse that rests."""
        status = self._viewer.status
        if isinstance(status, dict) and SEPARATOR in status.get("coordinates", ""):
            plain = status["coordinates"].partition(SEPARATOR)[0]
            self._viewer.status = {**status, "coordinates": plain}
