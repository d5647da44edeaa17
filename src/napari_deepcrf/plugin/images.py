"""From image layers to the planes that the session works on, without copying anything early."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np

from napari_deepcrf.plugin.geometry import Placement
from napari_deepcrf.session.images import (
    ImageSource,
    first_three_channels,
    stretched_channels,
)

if TYPE_CHECKING:
    from napari.layers import Image, Labels

CHANNEL_NAMES = ("c", "ch", "channel", "channels")
"""Labels of an axis whose planes are channels of one image, not images of their own."""


@dataclass(frozen=True, eq=False)
class Plane:
    """One 2-D plane of an image layer: its pixels and its place."""

    source: ImageSource
    placement: Placement
    leading: tuple[int, ...]
    """Indices of the plane along the axes before (y, x); 0 for channels."""
    stack_shape: tuple[int, ...]
    """Number of planes along those axes; 1 for channels."""
    channel: int | None = None
    """Which of these axes holds channels, if one does."""

    def cut(self, labels: Any) -> np.ndarray:
        """(H, W) copy of the plane of an array with the image's axes; painted in any channel."""
        plane = labels[_index(self.leading, self.channel)]
        return np.array(plane if self.channel is None else np.max(plane, axis=0))


class Revisions:
    """Counts how often a layer's data changed: the part of an image's key that pixels decide."""

    def __init__(self) -> None:
        self._keys: WeakKeyDictionary[Any, tuple[int, int]] = WeakKeyDictionary()
        self._numbers = itertools.count(1)

    def key(self, layer: Any) -> tuple[int, int]:
        """(number of the layer, revision of its data)."""
        if layer not in self._keys:
            self._keys[layer] = (next(self._numbers), 0)
        return self._keys[layer]

    def bump(self, layer: Any) -> None:
        """Count one more change."""
        number, revision = self.key(layer)
        self._keys[layer] = (number, revision + 1)


def finest(layer: Image | Labels) -> Any:
    """A layer's array, of a multiscale one that with the most pixels."""
    return layer.data[0] if layer.multiscale else layer.data


def spatial_shape(layer: Image) -> tuple[int, ...]:
    """Lengths of an image's axes, that of RGB channels left out."""
    return tuple(finest(layer).shape[: layer.ndim])


def has_pixels_of(key: Hashable, layer: Any, revisions: Revisions) -> bool:
    """Whether the key of an `ImageSource` still stands for pixels of the layer."""
    return isinstance(key, tuple) and key[0] == revisions.key(layer)


def plane_of(layer: Image, step: tuple[int, ...], revisions: Revisions) -> Plane:
    """The plane of ``layer`` that the viewer shows at ``step`` (indices of all its axes).

    An axis labelled as one of `CHANNEL_NAMES` is taken whole.

    Raises
    ------
    ValueError
        If the layer has no two spatial axes.
    """
    data = finest(layer)
    shape = spatial_shape(layer)
    if layer.ndim < 2:
        raise ValueError(f"image: expected two or more axes, got shape {shape}")
    leading, channel = _clip(step, shape), channel_axis(layer)
    lengths, stack = [1] * len(leading), list(shape[:-2])
    read, read_channels, channels = _reader(data, leading), None, 3
    if channel is not None:
        leading = (*leading[:channel], 0, *leading[channel + 1 :])
        lengths[channel], stack[channel] = shape[channel], 1
        read_channels, channels = _channel_reader(data, leading, channel), shape[channel]
        read = partial(_read_rgb, read_channels)
    return Plane(
        source=ImageSource(
            key=(revisions.key(layer), leading, channel),
            name=layer.name,
            shape=(shape[-2], shape[-1]),
            read=read,
            read_channels=read_channels,
            channels=channels,
        ),
        placement=Placement.of(layer, leading, tuple(lengths)),
        leading=leading,
        stack_shape=tuple(stack),
        channel=channel,
    )


def channel_axis(layer: Image) -> int | None:
    """Which axis before (y, x) holds channels, by its label; None for none."""
    names = [str(label).lower() for label in layer.axis_labels[:-2]]
    return next((axis for axis, name in enumerate(names) if name in CHANNEL_NAMES), None)


def annotated_planes(layer: Image, revisions: Revisions, labels: np.ndarray) -> list[Plane]:
    """Every plane of a stack with an annotation in ``labels``, an array with the image's axes.

    They come in order; channels are no planes of their own. Nothing is copied.
    """
    stack = list(spatial_shape(layer)[:-2])
    channel = channel_axis(layer)
    if channel is not None:
        stack[channel] = 1
    annotated = (step for step in np.ndindex(*stack) if labels[_index(step, channel)].any())
    return [plane_of(layer, step, revisions) for step in annotated]


def _clip(step: tuple[int, ...], shape: tuple[int, ...]) -> tuple[int, ...]:
    """Leading indices of ``step``, aligned from the right as napari does, inside the shape."""
    aligned = (0,) * len(shape) + tuple(step) if len(step) < len(shape) - 2 else tuple(step)
    stack = shape[:-2]
    if not stack:
        return ()
    wanted = aligned[: len(stack)]
    return tuple(int(min(max(i, 0), n - 1)) for i, n in zip(wanted, stack, strict=True))


def _reader(data: Any, leading: tuple[int, ...]) -> Callable[[], np.ndarray]:
    """Copy of the plane, made when the worker asks: later edits cannot reach a running job."""
    return lambda: np.array(data[leading])


def _channel_reader(data: Any, leading: tuple[int, ...], channel: int) -> Callable[[], np.ndarray]:
    return lambda: stretched_channels(np.array(data[_index(leading, channel)]))


def _index(leading: tuple[int, ...], channel: int | None) -> tuple[int | slice, ...]:
    """What a plane is in an array with the image's axes: with all channels, if it has any."""
    if channel is None:
        return leading
    return (*leading[:channel], slice(None), *leading[channel + 1 :])


def _read_rgb(read_channels: Callable[[], np.ndarray]) -> np.ndarray:
    return first_three_channels(read_channels())
