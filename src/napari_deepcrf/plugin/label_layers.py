"""Labels layers of ours: in the image's place, with the classes' colours and names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_deepcrf.plugin.palette import label_colormap

if TYPE_CHECKING:
    from napari.layers import Labels, Layer

    from napari_deepcrf.plugin.geometry import Placement
    from napari_deepcrf.plugin.palette import RGB
    from napari_deepcrf.session.annotations import AnnotationClass


def label_layer(
    data: np.ndarray | Sequence[Any], placement: Placement, *, name: str, role: str, **options: Any
) -> Labels:
    """A layer of (H, W) labels of one plane, of the image's whole stack, or with axes before both.

    A sequence of arrays, the finest first, makes a multiscale layer. ``role`` marks the layer as
    ours in its metadata: such layers are neither images nor scores to us.
    """
    from napari.layers import Labels

    return Labels(
        on_axes_of(placement, data) if isinstance(data, np.ndarray) and data.ndim == 2 else data,
        name=name,
        metadata={"deepcrf": role},
        **{**placement.layer_kwargs(), **options},
    )


def on_axes_of(placement: Placement, data: np.ndarray, *, leading: int = 0) -> np.ndarray:
    """``data`` of one plane with the image's axes before (y, x): of length one, channels repeated.

    ``leading`` axes of our own stay before all of them. Nothing is copied.
    """
    own, plane = data.shape[:leading], data.shape[leading:]
    whole = data.reshape(*own, *(1,) * len(placement.lengths), *plane)
    if max(placement.lengths, default=1) == 1:
        return whole
    return np.broadcast_to(whole, (*own, *placement.lengths, *plane))


def refill(
    layer: Layer, data: np.ndarray, placed: Mapping[str, Any], before: Mapping[str, Any]
) -> None:
    """Give a layer other data, and a transform where that differs from the one before.

    Both transforms are arguments of a layer, as from ``Placement.layer_kwargs``.
    """
    resized = data.shape != layer.data.shape
    layer.data = data
    for name, value in placed.items():
        # a translation makes napari measure a hidden layer again, which new data does not
        if (resized and name == "translate") or not np.array_equal(value, before[name]):
            setattr(layer, name, value)


def show_classes(
    layer: Labels,
    names: tuple[str, ...],
    colours: tuple[RGB, ...],
    *,
    first: int = 0,
) -> None:
    """Give label ``first + k`` the k-th class's colour, and its name for the status bar."""
    table = {"index": [first + k for k in range(len(names))], "class": list(names)}
    same_names = list(layer.features.get("class", ())) == table["class"]
    if not same_names:
        layer.features = table
    if not same_names or layer.metadata.get("deepcrf colours") != colours:
        layer.colormap = label_colormap(colours, first=first)
        layer.metadata["deepcrf colours"] = colours


def recolour(layer: Layer, classes: Iterable[AnnotationClass]) -> None:
    """Let the labels of a layer of ours follow the class list, where it has their names.

    Scribbles, whose label 1 is the first class, are left to whoever paints them.
    """
    colours = layer.metadata.get("deepcrf colours")
    if colours is not None and layer.metadata.get("deepcrf") != "scribbles":
        chosen = {entry.name: entry.colour for entry in classes}
        names = tuple(layer.features["class"])
        pairs = zip(names, colours, strict=False)
        show_classes(layer, names, tuple(chosen.get(name, old) for name, old in pairs))
