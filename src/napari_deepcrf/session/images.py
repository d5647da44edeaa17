"""Where a session's pixels and scores come from, without knowing any viewer."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class ImageSource:
    """One 2-D image. ``read`` runs in the worker: it may load a plane of a lazy array."""

    key: Hashable
    """Equal keys mean equal pixels: whoever makes the source changes it with the data."""
    name: str
    shape: tuple[int, int]
    """(H, W), known before anything is read."""
    read: Callable[[], Array] = field(repr=False, compare=False)
    """Returns (H, W) or (H, W, C), C = 1, 3 or 4: what networks see."""
    read_channels: Callable[[], Array] | None = field(default=None, repr=False, compare=False)
    """Returns (H, W, C) in 0–255, all channels for the CRF; None: it sees what networks do."""
    channels: int = 3
    """Number of channels that the CRF sees: grey levels count as three equal ones."""


@dataclass(frozen=True)
class ScoreSource:
    """Scores of another tool, to be refined by the CRF in place of a network's."""

    key: Hashable
    name: str
    class_names: tuple[str, ...]
    read: Callable[[], Array] = field(repr=False, compare=False)
    """Returns (L, H, W) float32 scores (log-probabilities up to a constant)."""


def stretched_channels(planes: Array) -> Array:
    """(C, H, W) of any numbers -> (H, W, C) float32, each channel by itself brought to 0–255."""
    from napari_deepcrf.data.images import as_channels

    return np.concatenate([as_channels(plane) for plane in planes], axis=2)


def first_three_channels(channels: Array) -> Array:
    """(H, W, 3) of (H, W, C) channels, black for those that lack: what networks see of many."""
    rgb = np.zeros((*channels.shape[:2], 3), channels.dtype)
    count = min(3, channels.shape[2])
    rgb[..., :count] = channels[..., :count]
    return rgb


def scores_from_values(values: Array) -> Array:
    """Turn (L, H, W) probabilities or logits into float32 scores.

    Values within 0–1 are taken as probabilities, anything else as scores already.

    Raises
    ------
    ValueError
        If there are not three axes, fewer than two classes, or values that are not finite.
    """
    import torch

    from napari_deepcrf.crf.potentials import scores_from_probabilities

    values = np.array(values, dtype=np.float32)  # a copy: napari's may be read-only or flipped
    if values.ndim != 3 or values.shape[0] < 2:
        raise ValueError(
            f"probabilities: expected (classes, height, width), 2 or more classes first, "
            f"got shape {values.shape}"
        )
    if not np.isfinite(values).all():
        raise ValueError("probabilities: expected finite values, got NaN or infinity")
    if values.min() < 0 or values.max() > 1:
        return values
    return np.asarray(scores_from_probabilities(torch.from_numpy(values)).numpy())


def scores_from_class_indices(indices: Array, num_classes: int, confidence: float) -> Array:
    """Turn (H, W) class indices, 0 the first class, into (L, H, W) float32 scores.

    The class of a pixel gets probability ``confidence``, the others share the rest.

    Raises
    ------
    ValueError
        If the confidence is outside (1/L, 1) or an index has no class.
    """
    import torch

    from napari_deepcrf.crf.potentials import scores_from_labels

    indices = np.asarray(indices).astype(np.int64)
    if indices.min() < 0 or indices.max() >= num_classes:
        raise ValueError(
            f"labels: expected values for {num_classes} classes, got up to {indices.max()}"
        )
    annotation = torch.from_numpy(indices + 1)  # whose 0 is unlabelled
    return np.asarray(scores_from_labels(annotation, num_classes, confidence=confidence).numpy())
