"""Layers that are out of date are named and faded so, until they are up to date again."""

from __future__ import annotations

from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from napari.layers import Layer

SUFFIX = " (out of date)"
FADE = 0.5


class StaleMarks:
    """Which layers bear the mark, and how opaque they were and are."""

    def __init__(self) -> None:
        self._opacities: WeakKeyDictionary[Layer, tuple[float, float]] = WeakKeyDictionary()

    def mark(self, layer: Layer, *, fresh: bool) -> None:
        """Name and fade a layer as out of date, or take that back."""
        if not fresh and layer not in self._opacities:
            before = layer.opacity
            layer.opacity = before * FADE
            self._opacities[layer] = (before, layer.opacity)
            layer.name = f"{layer.name}{SUFFIX}"
        elif fresh and layer in self._opacities:
            before, faded = self._opacities.pop(layer)
            if layer.opacity == faded:  # else the user has set another
                layer.opacity = before
            layer.name = layer.name.replace(SUFFIX, "", 1)  # napari may have put a number after it
