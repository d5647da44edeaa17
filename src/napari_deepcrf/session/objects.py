"""From classes to objects: connected regions of one class, numbered and measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from napari_deepcrf.session.results import Result

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Objects:
    """Numbered regions (H, W), 0 elsewhere, and a column of one value per region."""

    labels: Array
    centres: Array
    """(N, 2) mean row and column of region 1…N."""
    table: dict[str, Array]
    """``index``, ``area`` in pixels, ``mean_probability`` of the class inside, and
    ``boundary_entropy``: mean entropy of the marginals along the region's border, in nats."""


def find_objects(result: Result, class_index: int, minimum: int) -> Objects:
    """Connected regions (8-neighbours) of a class in the final labels, of at least a size.

    Raises
    ------
    ValueError
        If there is no such class, or the least size is below one pixel.
    """
    from skimage.measure import label
    from skimage.segmentation import find_boundaries

    if not 0 <= class_index < len(result.class_names):
        raise ValueError(
            f"class: expected an index below {len(result.class_names)}, got {class_index}"
        )
    if minimum < 1:
        raise ValueError(f"minimum size: expected 1 pixel or more, got {minimum}")
    regions = label(result.labels == class_index, connectivity=2)
    areas = np.bincount(regions.ravel())
    keep = areas >= minimum
    keep[0] = False
    number = np.where(keep, np.cumsum(keep), 0)
    labels = number[regions].astype(np.int32)
    index = np.arange(1, int(number.max(initial=0)) + 1)
    probability = _probability(result, class_index)
    border = np.where(find_boundaries(labels, mode="inner"), labels, 0)
    entropy = _entropy(result)
    places = (np.broadcast_to(axis, labels.shape) for axis in np.indices(labels.shape, sparse=True))
    return Objects(
        labels=labels,
        centres=np.stack([_means(axis, labels, len(index)) for axis in places], axis=1),
        table={
            "index": index,
            "area": areas[keep],
            "mean_probability": _means(probability, labels, len(index)),
            "boundary_entropy": _means(entropy, border, len(index)),
        },
    )


def _probability(result: Result, class_index: int) -> Array:
    """(H, W) marginal of a class in the last update; 0 where it was not kept, being nowhere."""
    if class_index not in result.classes:
        return np.zeros(result.labels.shape, np.float32)
    return np.asarray(result.marginals[result.classes.index(class_index), -1].astype(np.float32))


def _entropy(result: Result) -> Array:
    """(H, W) entropy of the last marginals, in nats; classes that were not kept count as one."""
    p = result.marginals[:, -1].astype(np.float32)
    if len(result.classes) < len(result.class_names):
        p = np.concatenate([p, 1 - p.sum(axis=0, keepdims=True)])
    p = np.clip(p, 1e-7, 1)
    return np.asarray(-(p * np.log(p)).sum(axis=0))


def _means(values: Array, labels: Array, count: int) -> Array:
    """Mean of the values in region 1…count; 0 for one without pixels."""
    flat = labels.ravel()
    total = np.bincount(flat, weights=values.ravel(), minlength=count + 1)[1:]
    pixels = np.bincount(flat, minlength=count + 1)[1:]
    return np.asarray(total / np.maximum(pixels, 1))
