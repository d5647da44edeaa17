"""The part of an image that is looked at, at the resolution it is looked at: fast enough to slide.

A slider on an image of many megapixels would lag by seconds. Mean field over the visible region,
averaged down to one value per screen pixel, with widths divided by as much, is close to what the
whole image will look like there, and takes as long as for a small image.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_deepcrf.session.events import Event, RegionReady
from napari_deepcrf.session.results import Identity
from napari_deepcrf.session.settings import CRFSettings
from napari_deepcrf.session.unary_cache import UnaryCache

Array = npt.NDArray[Any]

LEAST_WIDTH = 0.3
"""Spatial widths in reduced pixels are not taken below this, where a kernel is all but gone."""


@dataclass(frozen=True)
class Region:
    """Rows ``top`` to ``bottom`` and columns ``left`` to ``right``, every ``step`` pixels."""

    top: int
    bottom: int
    left: int
    right: int
    step: int

    @property
    def shape(self) -> tuple[int, int]:
        """(h, w) of the reduced region: whole blocks of step × step pixels only."""
        return (self.bottom - self.top) // self.step, (self.right - self.left) // self.step


def visible_region(
    first: tuple[float, float],
    last: tuple[float, float],
    shape: tuple[int, int],
    pixels_per_screen_pixel: float,
    *,
    most: int,
) -> Region | None:
    """The region between two corners (y, x) of what is visible of an image (H, W).

    Coarse enough to have at most ``most`` pixels; None if hardly anything is visible.
    """
    top, left = (max(0, int(np.floor(v))) for v in first)
    bottom, right = (min(n, int(np.ceil(v)) + 1) for v, n in zip(last, shape, strict=True))
    height, width = bottom - top, right - left
    least = np.sqrt(max(height, 0) * max(width, 0) / most)
    step = max(1, int(np.floor(pixels_per_screen_pixel)), int(np.ceil(least)))
    region = Region(top, bottom, left, right, step)
    return region if min(region.shape) >= 8 else None


def refine_region(cache: UnaryCache, identity: Identity, region: Region) -> Iterator[Event]:
    """Mean field on a region of cached scores; yields one `RegionReady`."""
    if cache.reduced is None or cache.reduced[0] != region:
        cache.reduced = region, cut(cache, region)
    _, part = cache.reduced
    labels = part.labels(reduced(identity.settings, region.step))
    yield RegionReady(identity, region, labels)


def cut(cache: UnaryCache, region: Region) -> UnaryCache:
    """Scores and image of a region, averaged over blocks of step × step pixels."""
    image = np.moveaxis(_blocks(np.moveaxis(cache.image, 2, 0), region), 0, 2)
    return UnaryCache(
        image_key=cache.image_key,
        unary_name=cache.unary_name,
        image=np.ascontiguousarray(image),
        scores=_blocks(cache.scores, region),
        class_names=cache.class_names,
        rows=cache.rows,
        device=cache.device,
        compatibility=cache.compatibility,
    )


def reduced(settings: CRFSettings, step: int) -> CRFSettings:
    """The settings with spatial widths in units of ``step`` pixels."""

    def shrink(width: float | tuple[float, ...]) -> float | tuple[float, ...]:
        if isinstance(width, tuple):
            return tuple(max(w / step, LEAST_WIDTH) for w in width)
        return max(width / step, LEAST_WIDTH)

    parameters = settings.parameters
    return settings.with_(
        theta_gamma=shrink(parameters.theta_gamma),
        theta_alpha=shrink(parameters.theta_alpha),
        extra_kernels=tuple(
            replace(kernel, theta_position=shrink(kernel.theta_position))
            for kernel in settings.extra_kernels
        ),
    )


def _blocks(planes: Array, region: Region) -> Array:
    """(C, H, W) -> (C, h, w): means over the region's blocks."""
    import torch
    from torch.nn import functional as F

    (height, width), step = region.shape, region.step
    rows = slice(region.top, region.top + height * step)
    columns = slice(region.left, region.left + width * step)
    chosen = torch.from_numpy(np.ascontiguousarray(planes[:, rows, columns]))
    with torch.inference_mode():
        return np.asarray(F.avg_pool2d(chosen[None], step)[0].numpy())
