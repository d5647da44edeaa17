"""Colour and local texture of an image at several scales, for a top layer that sees single pixels.

The same quantities that pixel classifiers are given by hand: Gaussian-smoothed colours, gradient
magnitude, the Hessian's eigenvalues and the local contrast, each at the scale σ and multiplied by
σ per order of differentiation, which makes them comparable over scales (Lindeberg 1998).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

SCALES = (0.7, 1.5, 3.0, 6.0, 12.0)
"""Standard deviations in pixels. From 3 on, the image is reduced until σ is 1.5 of its pixels."""

CHANNELS = 7
"""Maps of every scale."""


def texture_maps(image: Tensor) -> list[Tensor]:
    """(B, 3, H, W) images in 0–255 → a (B, `CHANNELS`, h, w) map for each scale, fine to coarse."""
    maps = []
    reduced, factor = image / 255, 1
    for scale in SCALES:
        while scale / factor >= 3 and min(reduced.shape[-2:]) > 1:
            reduced = F.avg_pool2d(reduced, 2, ceil_mode=True, count_include_pad=False)
            factor *= 2
        # The reduction has smoothed already: a box of f pixels has the variance (f² − 1) / 12.
        remaining = math.sqrt(scale**2 - (factor**2 - 1) / 12) / factor
        maps.append(_scale_maps(reduced, remaining, scale / factor))
    return maps


def _scale_maps(image: Tensor, smoothing: float, scale: float) -> Tensor:
    """(B, 3, h, w) → (B, `CHANNELS`, h, w) at a scale, of which ``smoothing`` is still to be done.

    Both are standard deviations in pixels of the image at hand. Channels: the smoothed colours,
    the gradient's magnitude, the Hessian's larger and smaller eigenvalue, the contrast.
    """
    smooth = _gaussian(image, smoothing)
    padded = F.pad(smooth, (1, 1, 1, 1), mode="replicate")
    left, right = padded[:, :, 1:-1, :-2], padded[:, :, 1:-1, 2:]
    above, below = padded[:, :, :-2, 1:-1], padded[:, :, 2:, 1:-1]
    gradient = (scale / 2) * ((right - left).square() + (below - above).square()).sum(
        1, keepdim=True
    ).sqrt()
    grey = padded.mean(1, keepdim=True)
    centre = grey[:, :, 1:-1, 1:-1]
    xx = grey[:, :, 1:-1, 2:] - 2 * centre + grey[:, :, 1:-1, :-2]
    yy = grey[:, :, 2:, 1:-1] - 2 * centre + grey[:, :, :-2, 1:-1]
    xy = (grey[:, :, 2:, 2:] + grey[:, :, :-2, :-2] - grey[:, :, 2:, :-2] - grey[:, :, :-2, 2:]) / 4
    mean = (scale**2 / 2) * (xx + yy)
    spread = scale**2 * ((xx - yy).square() / 4 + xy.square()).sqrt()
    variance = _gaussian(image.square(), scale) - _gaussian(image, scale).square()
    contrast = variance.clamp_min(0).mean(1, keepdim=True).sqrt()
    return torch.cat([smooth, gradient, mean + spread, mean - spread, contrast], 1)


def _gaussian(image: Tensor, sigma: float) -> Tensor:
    """Smoothed with a Gaussian cut off at 3σ; the border repeats outside."""
    radius = max(1, round(3 * sigma))
    offsets = torch.arange(-radius, radius + 1, device=image.device, dtype=image.dtype)
    taps = torch.exp(-0.5 * (offsets / sigma).square())
    taps = (taps / taps.sum()).expand(image.shape[1], 1, 1, -1)
    padded = F.pad(image, (radius,) * 4, mode="replicate")
    rows = F.conv2d(padded, taps, groups=image.shape[1])
    return F.conv2d(rows, taps.transpose(2, 3), groups=image.shape[1])
