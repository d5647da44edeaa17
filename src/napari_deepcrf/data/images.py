"""Arrays from outside as images: checked, and brought to grey levels of 0–255."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

MIN_SIDE = 8
"""Pixels of one cell of a network's score map."""


def as_rgb(image: Any) -> NDArray[np.float32]:
    """An image as (H, W, 3) float32 in 0–255.

    Accepts grey (H, W) or (H, W, 1), which is repeated, RGB, and RGBA, whose alpha is dropped.
    ``uint8`` is taken as it is, ``bool`` as 0 and 255, floats within 0–1 times 255, floats within
    0–255 as they are; everything else is stretched from its smallest to its largest value.

    Raises ValueError for other shapes, fewer than 8 pixels a side, or values that are not
    finite, and TypeError for what holds no numbers.
    """
    pixels = as_channels(image)
    channels = pixels.shape[2]
    if channels == 1:
        return np.repeat(pixels, 3, axis=2)
    if channels not in (3, 4):
        raise ValueError(f"image: expected 1, 3 or 4 channels, got {channels}")
    return np.ascontiguousarray(pixels[:, :, :3])


def as_channels(image: Any) -> NDArray[np.float32]:
    """Like `as_rgb`, but (H, W, C) with all the channels that there are."""
    array = np.asarray(image)
    if array.dtype != bool and not (
        np.issubdtype(array.dtype, np.integer) or np.issubdtype(array.dtype, np.floating)
    ):
        raise TypeError(f"image: expected numbers, got {array.dtype}")
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3:
        raise ValueError(f"image: expected (H, W) or (H, W, C), got shape {np.shape(image)}")
    check_sides(*array.shape[:2])
    if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
        raise ValueError("image: expected finite values, got NaN or infinity")
    return _grey_levels(array)


def check_sides(height: int, width: int) -> None:
    """Raise ValueError for an image with fewer than `MIN_SIDE` pixels on either side."""
    if min(height, width) < MIN_SIDE:
        raise ValueError(
            f"image: expected at least {MIN_SIDE}×{MIN_SIDE} pixels, got {height}×{width}"
        )


def _grey_levels(array: NDArray[Any]) -> NDArray[np.float32]:
    if array.dtype == np.uint8:
        return array.astype(np.float32)
    if array.dtype == bool:
        return array.astype(np.float32) * 255
    low, high = float(array.min()), float(array.max())
    if np.issubdtype(array.dtype, np.floating) and low >= 0 and high <= 255:
        return array.astype(np.float32) * (255 if high <= 1 else 1)
    span = (high - low) or 1.0
    return ((array.astype(np.float64) - low) * (255 / span)).astype(np.float32)
