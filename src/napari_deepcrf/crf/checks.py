"""Checks of what a dense CRF is given: each error is one line that names the argument."""

from __future__ import annotations

from numbers import Integral

import torch
from torch import Tensor

SPATIAL_AXES = (2, 3)
"""Of images and of volumes."""


def check_type(name: str, value: object, kind: type) -> None:
    """Raise TypeError unless the value is of a kind."""
    if not isinstance(value, kind):
        raise TypeError(f"{name}: expected {kind.__name__}, got {type(value).__name__}")


def check_whole(name: str, value: object, *, least: int) -> None:
    """Raise unless the value is a whole number of at least so much."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name}: expected a whole number, got {value!r}")
    if value < least:
        raise ValueError(f"{name}: expected at least {least}, got {value}")


def check_image(image: Tensor) -> None:
    """Raise unless the image is a finite (B, C, H, W) or (B, C, D, H, W) tensor, not empty."""
    _check_tensor("image", image)
    if image.ndim - 2 not in SPATIAL_AXES:
        raise ValueError(
            f"image: expected (B, C, H, W) or (B, C, D, H, W), got {tuple(image.shape)}"
        )
    if image.numel() == 0:
        raise ValueError(
            f"image: expected at least one image, channel and pixel, got {tuple(image.shape)}"
        )
    if not is_finite(image):
        raise ValueError("image: expected finite numbers, got NaN or infinity")


def check_scores(scores: Tensor, image: Tensor) -> None:
    """Raise unless the scores (B, L, *S) belong to the images (B, C, *S)."""
    _check_tensor("scores", scores)
    _check_tensor("image", image)
    batch_and_grid = scores.shape[:1] + scores.shape[2:]
    if scores.ndim != image.ndim or batch_and_grid != image.shape[:1] + image.shape[2:]:
        raise ValueError(
            "scores: expected (B, L, *S) with the image's (B, C, *S), "
            f"got {tuple(scores.shape)} and {tuple(image.shape)}"
        )
    if scores.shape[1] == 0:
        raise ValueError(f"scores: expected at least one label, got {tuple(scores.shape)}")


def check_finite_scores(scores: Tensor) -> None:
    """Raise if a score is NaN or infinite.

    One such score spreads to every pixel. Training must see that in its loss to go back to better
    weights, so that only inference asks.
    """
    _check_tensor("scores", scores)
    if not is_finite(scores):
        raise ValueError("scores: expected finite numbers, got NaN or infinity")


def is_finite(tensor: Tensor) -> bool:
    """Whether all numbers are finite; a finite sum says so at once, without a temporary."""
    tensor = tensor.detach()
    if not tensor.is_floating_point():
        return True
    return bool(torch.isfinite(tensor.sum())) or bool(torch.isfinite(tensor).all())


def _check_tensor(name: str, value: object) -> None:
    if not isinstance(value, Tensor):
        raise TypeError(f"{name}: expected a torch.Tensor, got {type(value).__name__}")
    if value.is_complex() or value.dtype == torch.bool:
        raise TypeError(f"{name}: expected real numbers, got {value.dtype}")
