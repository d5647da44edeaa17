"""The layers of a result: made once, updated in place, held as objects, never by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from napari_deepcrf.plugin.context import add_layer
from napari_deepcrf.plugin.label_layers import label_layer, on_axes_of, refill, show_classes
from napari_deepcrf.plugin.stale_marks import StaleMarks

if TYPE_CHECKING:
    from napari.layers import Layer
    from napari.viewer import Viewer

    from napari_deepcrf.plugin.geometry import Placement
    from napari_deepcrf.plugin.palette import RGB
    from napari_deepcrf.session.results import Result

Role = Literal["unary", "marginals", "uncertainty", "labels", "history"]
ROLES: tuple[Role, ...] = ("unary", "marginals", "uncertainty", "labels", "history")


@dataclass(eq=False)
class _Shown:
    """The last result of one image and its layers."""

    result: Result
    layers: dict[Role, Layer] = field(default_factory=dict)
    marks: StaleMarks = field(default_factory=StaleMarks)
    placed: dict[Role, dict[str, Any]] = field(default_factory=dict)

    def mark(self, *, fresh: bool) -> None:
        """Name and fade the layers as out of date, or take that back."""
        for layer in self.layers.values():
            self.marks.mark(layer, fresh=fresh)


class ResultLayers:
    """Shows one result of every image as napari layers; that of one image is the present one.

    A layer that the user removed is made again by the image's next result.
    """

    def __init__(
        self, viewer: Viewer, colours: Callable[[tuple[str, ...]], tuple[RGB, ...]]
    ) -> None:
        self._viewer, self._colours = viewer, colours
        self._images: dict[object, _Shown] = {}
        self._present: _Shown | None = None

    def __getitem__(self, role: Role) -> Layer:
        layer = self.get(role)
        if layer is None:
            raise KeyError(role)
        return layer

    def get(self, role: Role) -> Layer | None:
        """The present result's layer of a role, if it is in the viewer."""
        return None if self._present is None else self._present.layers.get(role)

    def __contains__(self, layer: object) -> bool:
        return any(layer is x for shown in self._images.values() for x in shown.layers.values())

    def is_shown(self, owner: object) -> bool:
        """Whether there are layers of an image's result."""
        return owner in self._images

    def turn_to(self, result: Result) -> bool:
        """Make a result the present one whose layers are there; False if they are not."""
        found = next((x for x in self._images.values() if x.result is result), None)
        self._present = found or self._present
        return found is not None

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
        shown = self._images.setdefault(owner, _Shown(result))
        shown.result, self._present = result, shown
        shown.mark(fresh=True)
        for role in reversed(ROLES):
            if role in shown.layers:
                self._update(shown, role, placement)
                yield
        for role in ROLES:
            if role not in shown.layers:
                shown.layers[role] = self._add(shown, role, name, placement)
                yield

    def forget(self, layer: Layer) -> None:
        """The user removed a layer; results of a removed image are the user's, out of date."""
        if layer in self._images:
            gone = self._images.pop(layer)
            gone.mark(fresh=False)
            self._present = None if gone is self._present else self._present
        for owner, shown in list(self._images.items()):
            for role, own in list(shown.layers.items()):
                if own is layer:
                    del shown.layers[role]
            if not shown.layers and shown is not self._present:
                del self._images[owner]

    def mark(self, is_fresh: Callable[[object, Result], bool]) -> None:
        """Name and fade the layers of results that are out of date; ask it of each image's."""
        for owner, shown in self._images.items():
            shown.mark(fresh=is_fresh(owner, shown.result))

    def _update(self, shown: _Shown, role: Role, placement: Placement) -> None:
        layer, result = shown.layers[role], shown.result
        options = _options(role, result, placement)
        refill(layer, _data(role, result, placement), options, shown.placed[role])
        shown.placed[role] = options
        if role in ("labels", "history"):
            show_classes(layer, result.class_names, self._colours(result.class_names))

    def _add(self, shown: _Shown, role: Role, name: str, placement: Placement) -> Layer:
        from napari.layers import Image

        result = shown.result
        data = _data(role, result, placement)
        title = f"{name} [{_TITLES[role]}]"
        options = shown.placed[role] = _options(role, result, placement)
        layer: Layer
        if role in ("labels", "history"):
            look: dict[str, Any] = {"opacity": 0.6, "visible": role == "history"}
            layer = label_layer(data, placement, name=title, role=role, **look, **options)
            show_classes(layer, result.class_names, self._colours(result.class_names))
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
