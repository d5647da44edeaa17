"""The layers of a result: made once, updated in place, held as objects, never by name."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from napari_deepcrf.plugin.context import add_layer
from napari_deepcrf.plugin.label_layers import label_layer, on_axes_of, show_classes

if TYPE_CHECKING:
    from napari.layers import Layer
    from napari.viewer import Viewer

    from napari_deepcrf.plugin.geometry import Placement
    from napari_deepcrf.session.results import Result

Role = Literal["unary", "marginals", "uncertainty", "labels", "history"]
ROLES: tuple[Role, ...] = ("unary", "marginals", "uncertainty", "labels", "history")

STALE_SUFFIX = " (out of date)"
STALE_FADE = 0.5


class ResultLayers:
    """Shows one result at a time as napari layers.

    The layers of a new image are new ones; those of the previous image stay in the viewer and
    become the user's. A layer that the user removed is made again by the next result.
    """

    def __init__(self, viewer: Viewer) -> None:
        self._viewer = viewer
        self._layers: dict[Role, Layer] = {}
        self._owner: object = None
        self._faded: dict[Role, tuple[float, float]] = {}
        self._placed: dict[Role, dict[str, Any]] = {}

    def __getitem__(self, role: Role) -> Layer:
        return self._layers[role]

    def get(self, role: Role) -> Layer | None:
        """The layer of a role, if it is in the viewer."""
        return self._layers.get(role)

    def __contains__(self, layer: object) -> bool:
        return any(layer is own for own in self._layers.values())

    def steps(
        self,
        result: Result,
        owner: object,
        name: str,
        placement: Placement,
    ) -> Iterator[None]:
        """Show a result layer by layer: a generator, to be advanced between events of the GUI.

        ``owner`` is the image layer: a result of another one starts new layers.
        """
        if owner is not self._owner:
            self._layers.clear()
            self._faded.clear()
            self._owner = owner
        self.mark(fresh=True)
        for role in reversed(ROLES):
            if role in self._layers:
                self._update(role, result, placement)
                yield
        for role in ROLES:
            if role not in self._layers:
                self._layers[role] = self._add(role, result, name, placement)
                yield

    def forget(self, layer: Layer) -> None:
        """The user removed a layer."""
        for role, own in list(self._layers.items()):
            if own is layer:
                del self._layers[role]
                self._faded.pop(role, None)

    def mark(self, *, fresh: bool) -> None:
        """Name and fade the layers as out of date, or take that back."""
        for role, layer in self._layers.items():
            if not fresh and role not in self._faded:
                before = layer.opacity
                layer.opacity = before * STALE_FADE
                self._faded[role] = (before, layer.opacity)
                layer.name = f"{layer.name}{STALE_SUFFIX}"
            elif fresh and role in self._faded:
                before, faded = self._faded.pop(role)
                if layer.opacity == faded:
                    layer.opacity = before
                layer.name = layer.name.removesuffix(STALE_SUFFIX)

    def _update(self, role: Role, result: Result, placement: Placement) -> None:
        layer = self._layers[role]
        data = _data(role, result, placement)
        resized = data.shape != layer.data.shape
        layer.data = data
        before, options = self._placed[role], _options(role, result, placement)
        for name, value in options.items():
            # a translation makes napari measure a hidden layer again, which new data does not
            if (resized and name == "translate") or not np.array_equal(value, before[name]):
                setattr(layer, name, value)
        self._placed[role] = options
        if role in ("labels", "history"):
            show_classes(layer, result.class_names)

    def _add(
        self,
        role: Role,
        result: Result,
        name: str,
        placement: Placement,
    ) -> Layer:
        from napari.layers import Image

        data = _data(role, result, placement)
        title = f"{name} [{_TITLES[role]}]"
        options = self._placed[role] = _options(role, result, placement)
        layer: Layer
        if role in ("labels", "history"):
            look: dict[str, Any] = {"opacity": 0.6, "visible": role == "history"}
            layer = label_layer(data, placement, name=title, role=role, **look, **options)
            show_classes(layer, result.class_names)
            layer.editable = role == "labels" and data.flags.writeable
        else:
            limits = _limits(result.score_range) if role == "unary" else (0.0, 1.0)
            layer = Image(
                data,
                name=title,
                contrast_limits=limits,
                colormap="magma" if role == "uncertainty" else "gray",
                blending="additive" if role == "uncertainty" else "translucent",
                visible=False,
                metadata={"deepcrf": role},
                **options,
            )
        add_layer(self._viewer, layer)
        return layer


_TITLES: dict[Role, str] = {
    "unary": "unary",
    "marginals": "marginals",
    "uncertainty": "uncertainty",
    "labels": "labels",
    "history": "label history",
}


def _leading(role: Role) -> tuple[str, ...]:
    if role in ("unary", "marginals"):
        return ("class", "update")
    return () if role == "labels" else ("update",)


def _options(role: Role, result: Result, placement: Placement) -> dict[str, Any]:
    """Transform of a role's layer; marginals of the last update alone lie at that update."""
    options = placement.layer_kwargs(*_leading(role))
    if role == "marginals":
        translate = options["translate"]
        options["translate"] = (translate[0], float(result.first_update), *translate[2:])
    return options


def _data(role: Role, result: Result, placement: Placement) -> np.ndarray:
    """The array of a role; the unary is shown, not copied, at every update."""
    if role == "unary":
        values = result.unary[:, None]
        shape = (values.shape[0], result.iterations + 1, *values.shape[2:])
        return on_axes_of(placement, np.broadcast_to(values, shape), leading=2)
    return on_axes_of(placement, getattr(result, role), leading=len(_leading(role)))


def _limits(score_range: tuple[float, float]) -> tuple[float, float]:
    low, high = score_range
    return (low, high) if high > low else (low, low + 1)
