"""Images that are read where they are needed: arrays in memory or on disk, OME-Zarr, pyramids."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
from dask.base import compute
from numpy.typing import NDArray

from napari_deepcrf.data.images import check_sides
from napari_deepcrf.inference.block_cache import BlockCache
from napari_deepcrf.messages import first_line

MAX_CHANNELS = 4
CHUNK = 4 << 20
"""Bytes of a chunk: few enough for a cache to hold some, many enough for few chunks."""
SAMPLES, SAMPLE = 8, 32
"""A fingerprint takes so many windows along each axis, so many pixels a side."""


@dataclass(frozen=True)
class GreyLevels:
    """How stored values become grey levels of 0–255: (value − offset) × factor."""

    offset: float
    factor: float

    @classmethod
    def of(cls, pixels: da.Array) -> GreyLevels:
        """Those that `as_rgb` would take, had it all of the pixels at once.

        Other types than ``uint8`` and ``bool`` are read once for their smallest and largest value.
        Raises ValueError for values that are not finite and for broken data.
        """
        if pixels.dtype == np.uint8:
            return cls(0.0, 1.0)
        if pixels.dtype == bool:
            return cls(0.0, 255.0)
        try:
            low, high = (float(x) for x in compute(pixels.min(), pixels.max()))
        # Decoders raise whatever their broken input leads to.
        except Exception as error:
            raise ValueError(f"image: reading it failed: {first_line(error)}") from error
        if not (np.isfinite(low) and np.isfinite(high)):
            raise ValueError("image: expected finite values, got NaN or infinity")
        if np.issubdtype(pixels.dtype, np.floating) and low >= 0 and high <= 255:
            return cls(0.0, 255.0 if high <= 1 else 1.0)
        return cls(low, 255 / ((high - low) or 1.0))

    def rgb(self, values: NDArray[Any]) -> NDArray[np.float32]:
        """(..., 3) grey levels of stored values (..., C), C = 1 or 3; grey is repeated."""
        if self.offset or self.factor != 1:
            values = (values.astype(np.float64) - self.offset) * self.factor
        levels = values.astype(np.float32)
        return levels if levels.shape[-1] == 3 else np.repeat(levels, 3, axis=-1)


@dataclass(frozen=True, eq=False)
class LazyImage:
    """An H × W image whose pixels are read and brought to 0–255 a window at a time."""

    pixels: da.Array
    """(H, W, C), C = 1, 3 or 4."""
    levels: GreyLevels

    @classmethod
    def of(cls, image: Any) -> LazyImage:
        """What `open_array` takes, as one image with the grey levels of all its pixels.

        Raises
        ------
        ValueError
            For other shapes, fewer than 8 pixels a side, or values that are not finite.
        TypeError
            For what holds no numbers.
        """
        pixels = open_array(image)
        if pixels.ndim != 3:
            raise ValueError(f"image: expected (H, W) or (H, W, C), got shape {pixels.shape[:-1]}")
        check_sides(*pixels.shape[:2])
        return cls(pixels, GreyLevels.of(pixels))

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W)."""
        height, width = self.pixels.shape[:2]
        return int(height), int(width)

    def raw(self, rows: slice, columns: slice) -> NDArray[Any]:
        """(h, w, C) of a window as it is stored, alpha dropped; ValueError for broken data."""
        inside = (
            slice(*w.indices(n)[:2]) for w, n in zip((rows, columns), self.shape, strict=True)
        )
        try:
            return self._cache.read(*inside)[..., :3]
        # Decoders raise whatever their broken input leads to.
        except Exception as error:
            raise ValueError(
                f"image: reading rows {rows.start}–{rows.stop} of columns "
                f"{columns.start}–{columns.stop} failed: {first_line(error)}"
            ) from error

    @cached_property
    def _cache(self) -> BlockCache:
        return BlockCache(self.pixels)

    def read(self, rows: slice, columns: slice) -> NDArray[np.float32]:
        """(h, w, 3) of a window in 0–255."""
        return self.levels.rgb(self.raw(rows, columns))

    def mean(self) -> tuple[float, ...]:
        """(3,) the mean colour of the image, in 0–255; reads all of it."""
        means = self.pixels[..., :3].mean((0, 1), dtype=np.float64).compute()
        return tuple(self.levels.rgb(np.asarray(means)).tolist())

    def fingerprint(self) -> str:
        """SHA-256 of shape, type and a sample of the pixels: who it is, not every change of it."""
        total = hashlib.sha256(f"{self.pixels.shape} {self.pixels.dtype}".encode())
        height, width = self.shape
        for y in np.linspace(0, height - SAMPLE, SAMPLES).clip(0).astype(int):
            for x in np.linspace(0, width - SAMPLE, SAMPLES).clip(0).astype(int):
                window = self.raw(slice(y, y + SAMPLE), slice(x, x + SAMPLE))
                total.update(np.ascontiguousarray(window).tobytes())
        return total.hexdigest()


def open_array(image: Any, *, channel_axis: int | None = None) -> da.Array:
    """An image or stack as a lazy array (..., H, W, C), C = 1 for grey.

    Without a ``channel_axis`` the last axis holds channels if it has at most four entries, and that
    of an OME-Zarr image is the one that its metadata name so.

    Takes whatever has shape, dtype and slices (NumPy, dask, zarr, memory maps), a pyramid of these
    as a list or napari's multiscale data (the finest counts), a ``.npy`` file, or the folder of a
    zarr array or an OME-Zarr image (versions 0.4 and 0.5).

    Raises
    ------
    ValueError
        For a path that holds no image, more than four channels or fewer than two axes.
    TypeError
        For what holds no numbers.
    """
    if isinstance(image, (str, Path)):
        image, axes = _open_path(Path(image))
        if channel_axis is None and "c" in axes:
            channel_axis = axes.index("c")
    elif _is_pyramid(image):
        image = image[0]
    array = _as_dask(image)
    if channel_axis is not None:
        return _checked(da.moveaxis(array, channel_axis, -1))
    has_channels = array.ndim > 2 and array.shape[-1] <= MAX_CHANNELS
    return _checked(array if has_channels else array[..., None])


def read_plane(stack: da.Array, index: tuple[int, ...]) -> NDArray[Any]:
    """(H, W, C) of a stack (*S, H, W, C) as it is stored; ValueError for broken data."""
    try:
        return np.asarray(stack[index].compute(scheduler="synchronous"))
    # Decoders raise whatever their broken input leads to.
    except Exception as error:
        number = ", ".join(map(str, index))
        raise ValueError(f"image: reading plane {number} failed: {first_line(error)}") from error


def _as_dask(image: Any) -> da.Array:
    if isinstance(image, da.Array):
        return image
    if not hasattr(image, "dtype") or not hasattr(image, "shape"):
        image = np.asarray(image)
    # Dask joins the stored chunks of a zarr array up to this size, but must not cut one.
    stored = math.prod(getattr(image, "chunks", None) or (0,)) * np.dtype(image.dtype).itemsize
    with dask.config.set({"array.chunk-size": max(CHUNK, stored)}):
        # A name of its own: hashing the content would read it all.
        array: da.Array = da.from_array(image, name=False)
    return array


def _checked(array: da.Array) -> da.Array:
    if np.dtype(array.dtype).kind not in "biuf":
        raise TypeError(f"image: expected numbers, got {array.dtype}")
    if array.ndim < 3:
        raise ValueError(f"image: expected two or more axes, got shape {array.shape[:-1]}")
    if array.shape[-1] not in (1, 3, 4):
        raise ValueError(f"image: expected 1, 3 or 4 channels, got {array.shape[-1]}")
    return array


def _is_pyramid(image: Any) -> bool:
    """Arrays that each have a shape of their own, as napari keeps them, not rows of numbers."""
    if hasattr(image, "dtype") and not isinstance(image, Sequence):
        return False
    is_sequence = isinstance(image, Sequence) and len(image) > 0
    return is_sequence and all(hasattr(level, "shape") and level.ndim >= 2 for level in image)


def _open_path(path: Path) -> tuple[Any, str]:
    """The finest array behind a path and the letters of its axes, empty where nobody tells."""
    import zarr

    if path.suffix == ".npy" and path.is_file():
        try:
            return np.load(path, mmap_mode="r", allow_pickle=False), ""
        except (ValueError, OSError, EOFError) as error:
            raise ValueError(f"image: expected one array of numbers in {path}") from error
    if not path.is_dir():
        raise ValueError(f"image: expected a .npy file or a zarr folder, got {path}")
    try:
        node = zarr.open(path, mode="r")
        if isinstance(node, zarr.Array):
            return node, ""
        attributes: Any = dict(node.attrs)
        multiscale = attributes.get("ome", attributes)["multiscales"][0]
        array = node[multiscale["datasets"][0]["path"]]
        axes = multiscale.get("axes", ())
        names = [axis if isinstance(axis, str) else axis["name"] for axis in axes]
        return array, "".join(name[:1].lower() for name in names)
    # What zarr and the lines above come to when the JSON is damaged.
    except (LookupError, TypeError, ValueError, AttributeError, RecursionError, OSError) as error:
        raise ValueError(f"image: expected a zarr array or an OME-Zarr image in {path}") from error
