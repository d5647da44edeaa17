"""What work takes of the memory, before it starts, and how to keep within a limit.

Estimates are of the CPU path, which holds most in the process's own memory. The figures per pixel
were measured as peak resident set (docs/large-images.md).
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass

import psutil
from dask.utils import parse_bytes

from napari_deepcrf.inference.tiling import Surroundings

# Bytes for each pixel, or point of a tile.
POINT_BYTES = 260
"""Its features, lattice entries of a spatial and a bilateral kernel, and their factors."""
CLASS_BYTES = 12
"""Its score, padded logit and marginal of one class."""
KERNEL_BYTES = 90
"""Its share of every further kernel."""
VOLUME_BYTES = 40
"""What the third position adds to its entries in each lattice."""
IMAGE_BYTES = 24
"""Its colours, as given and as numbers of 0–255."""

READING_BYTES = 300 << 20
"""For an image in tiles: chunks that are kept, and what is reduced of it for the network."""
DEFAULT_TILE, SMALLEST_TILE = 1536, 256
"""Pixels a side."""
SHARE = 0.5
"""The part of the machine's free memory that is used where nobody sets a limit."""


def parse_memory(text: str) -> int:
    """Bytes of "2GB", "1.5 GiB" or "800MB".

    Raises
    ------
    ValueError
        For anything else, and for less than one byte.
    """
    try:
        size = int(parse_bytes(text if any(map(str.isdigit, text)) else "nothing"))
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"memory: expected a size such as 2GB or 800MB, got {text!r}") from error
    if size < 1:
        raise ValueError(f"memory: expected a positive size, got {text!r}")
    return size


def resident() -> int:
    """Bytes of memory that this process takes now."""
    return int(psutil.Process().memory_info().rss)


def available() -> int:
    """Bytes that the process may still take where nobody sets a limit."""
    return int(SHARE * psutil.virtual_memory().available)


def crf_bytes(points: int, classes: int, *, kernels: int = 2, dims: int = 2) -> int:
    """Bytes that a mean field takes at its peak, by its kernels and their axes of position."""
    lanes = math.ceil(classes / 4) * 4
    each = POINT_BYTES + CLASS_BYTES * lanes + KERNEL_BYTES * (kernels - 2)
    return points * (each + VOLUME_BYTES * (dims - 2) * kernels)


def image_bytes(shape: tuple[int, ...], classes: int, *, iterations: int | None = None) -> int:
    """Bytes that `Predictor.labels` takes for an H × W image, or `segment` to keep T updates."""
    kept = 0 if iterations is None else 4 * classes * (iterations + 2)
    return crf_bytes(math.prod(shape), classes) + math.prod(shape) * (kept + IMAGE_BYTES)


def volume_bytes(shape: tuple[int, ...], classes: int) -> int:
    """Bytes that a 3-D CRF takes for a stack (D, H, W)."""
    points = math.prod(shape)
    return crf_bytes(points, classes, dims=3) + points * (4 * classes + IMAGE_BYTES)


def fits(shape: tuple[int, ...], classes: int, *, limit: int | None = None) -> bool:
    """Whether an H × W image can be labelled as a whole within ``limit`` bytes for the process.

    Without a limit half of the free memory may be used.
    """
    return image_bytes(shape, classes) <= _room(limit)


def check_room(needed: int, limit: int | None, what: str) -> None:
    """Raise ValueError, with both sizes, where work takes more than there may be used."""
    room = _room(limit)
    if needed > room:
        raise ValueError(
            f"memory: {what} takes about {needed / 1e9:.2f} GB, expected at most "
            f"{max(room, 0) / 1e9:.2f} GB beside what the process has"
        )


def _room(limit: int | None) -> int:
    return available() if limit is None else limit - resident()


@dataclass(frozen=True, kw_only=True)
class TilePlan:
    """How an image is worked on, and what that takes."""

    tile: int
    """Pixels a side."""
    workers: int
    """Tiles at once."""
    needed: int
    """Bytes beyond what the process has now."""

    def __str__(self) -> str:
        return (
            f"tiles of {self.tile}×{self.tile} pixels, {self.workers} at once, "
            f"about {self.needed / 1e9:.2f} GB"
        )


def plan_tiles(
    shape: tuple[int, int],
    classes: int,
    surroundings: Surroundings,
    *,
    kernels: int = 2,
    limit: int | None = None,
    tile: int | None = None,
    workers: int | None = None,
    maps: int = 0,
) -> TilePlan:
    """The fastest plan within a limit: fewer tiles at once first, then smaller ones.

    Parameters
    ----------
    shape, classes, surroundings, kernels
        The image, L, and the CRF's reach and number of kernels.
    limit
        Bytes for the whole process; by default half of the memory that is free is used.
    tile, workers
        Fixed where they are given.
    maps
        Bytes of the network's score maps.

    Raises
    ------
    ValueError
        If even the smallest plan takes more, with what it would take.
    """
    present = resident()
    room = _room(limit)
    tiles = (tile,) if tile else (DEFAULT_TILE, DEFAULT_TILE // 2, SMALLEST_TILE)
    most = workers or os.cpu_count() or 1
    plan = None
    for size in tiles:
        points = surroundings.count(size, shape)
        for count in (most,) if workers else range(most, 0, -1):
            together = min(count, math.ceil(shape[0] / size) * math.ceil(shape[1] / size))
            needed = together * crf_bytes(points, classes, kernels=kernels) + maps + READING_BYTES
            plan = TilePlan(tile=size, workers=together, needed=needed)
            if needed <= room:
                return plan
    assert plan is not None
    raise ValueError(
        f"memory: expected at least {(plan.needed + present) / 1e9:.2f} GB for {plan}, "
        f"got {(room + present) / 1e9:.2f} GB"
    )
