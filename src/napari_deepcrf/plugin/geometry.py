"""Where results lie in the world: the image's own transform, with axes put before it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from napari.layers import Layer


@dataclass(frozen=True)
class Placement:
    """Transform of one (y, x) plane of an image layer with n spatial axes."""

    scale: tuple[float, ...]
    linear: np.ndarray
    """Scale, shear and rotation as one matrix, before ``affine``."""
    translate: tuple[float, ...]
    rotate: np.ndarray
    shear: np.ndarray
    affine: np.ndarray
    units: tuple[str, ...]
    axis_labels: tuple[str, ...]
    lengths: tuple[int, ...] = ()
    """How far the plane reaches along the axes before (y, x): 1, or over all channels."""

    @classmethod
    def of(
        cls, layer: Layer, plane: tuple[int, ...] = (), lengths: tuple[int, ...] = ()
    ) -> Placement:
        """Take over a layer's transform, moved to the plane with these leading indices."""
        ndim = layer.ndim
        offset = np.zeros(ndim)
        offset[: len(plane)] = plane
        linear = _linear(layer)
        return cls(
            scale=tuple(float(v) for v in layer.scale),
            linear=linear,
            translate=tuple(float(v) for v in np.asarray(layer.translate) + linear @ offset),
            rotate=np.asarray(layer.rotate, dtype=float),
            shear=np.asarray(layer.shear, dtype=float),
            affine=np.asarray(layer.affine.affine_matrix, dtype=float),
            units=tuple(str(unit) for unit in layer.units),
            axis_labels=tuple(layer.axis_labels),
            lengths=lengths,
        )

    @property
    def ndim(self) -> int:
        """Number of the image's spatial axes."""
        return len(self.scale)

    def part(self, top: int, left: int, step: int) -> Placement:
        """Where blocks of step × step pixels of the plane lie, the first one's corner given."""
        offset = np.zeros(self.ndim)
        offset[-2:] = np.array([top, left]) + (step - 1) / 2  # a pixel's place is its centre
        return replace(
            self,
            scale=(*self.scale[:-2], self.scale[-2] * step, self.scale[-1] * step),
            translate=tuple(float(v) for v in np.asarray(self.translate) + self.linear @ offset),
        )

    def layer_kwargs(self, *leading: str) -> dict[str, Any]:
        """Arguments for a napari layer that has the named axes before the image's."""
        extra = len(leading)
        return {
            "scale": (1.0,) * extra + self.scale,
            "translate": (0.0,) * extra + self.translate,
            "rotate": _pad(self.rotate, extra),
            "shear": _pad_shear(self.shear, self.ndim, extra),
            "affine": _pad(self.affine, extra),
            "units": ("pixel",) * extra + self.units,
            "axis_labels": (*leading, *self.axis_labels),
        }


def _linear(layer: Layer) -> np.ndarray:
    """Matrix of scale, shear and rotation, data to world before ``affine``."""
    origin = np.zeros(layer.ndim)
    step = np.eye(layer.ndim)
    inverse = np.linalg.inv(np.asarray(layer.affine.linear_matrix, dtype=float))
    base = np.asarray(layer.data_to_world(origin))
    columns = [np.asarray(layer.data_to_world(e)) - base for e in step]
    return np.asarray(inverse @ np.stack(columns, axis=1))


def _pad(matrix: np.ndarray, extra: int) -> np.ndarray:
    """Put ``extra`` identity axes before a square matrix."""
    size = len(matrix) + extra
    padded = np.eye(size)
    padded[extra:, extra:] = matrix
    return padded


def _pad_shear(shear: np.ndarray, ndim: int, extra: int) -> np.ndarray:
    """Put ``extra`` axes without shear before an upper-triangular vector or matrix."""
    if shear.ndim == 2:
        return _pad(shear, extra)
    matrix = np.eye(ndim)
    matrix[np.triu_indices(ndim, 1)] = shear
    return _pad(matrix, extra)
