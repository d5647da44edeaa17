"""Labels as an OME-Zarr 0.5 label image, on the disk or in memory, written tile by tile."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_deepcrf.data.label_files import voc_palette
from napari_deepcrf.inference.tiling import Labels, Tile, cut

if TYPE_CHECKING:
    import zarr
    from zarr.storage import MemoryStore

LEVELS = 5
"""At most so many resolutions, each half the one before."""
SMALLEST = 64
"""Pixels that a chunk's side and the image's shorter one keep."""


class LabelPyramid:
    """An (H, W) label image with a chunk of every resolution for each tile.

    As a tile owns its chunks, tiles can be written at once and in any order, and a chunk is on the
    disk whole or not at all. What is not written yet reads as 0.
    """

    def __init__(self, levels: Sequence[zarr.Array[Any]]) -> None:
        self._levels = tuple(levels)

    @classmethod
    def create(
        cls,
        place: Path | MemoryStore,
        shape: tuple[int, int],
        *,
        tile: int,
        class_names: Sequence[str],
        attributes: Mapping[str, Any] = MappingProxyType({}),
    ) -> LabelPyramid:
        """Make the folder of an H × W label image, or fill a store in memory.

        ``attributes`` are kept beside OME's. Raises OSError where the folder cannot be made or is
        there already.
        """
        import zarr

        if isinstance(place, Path):
            place.mkdir(parents=True)
        count = _level_count(shape, tile)
        group = zarr.create_group(
            place, attributes={"ome": label_attributes(count, class_names), **attributes}
        )
        levels = []
        for level in range(count):
            size = tuple(-(-n // 2**level) for n in shape)
            array = group.create_array(
                str(level),
                shape=size,
                dtype=np.uint8,
                chunks=tuple(min(tile >> level, n) for n in size),
                dimension_names=("y", "x"),
                fill_value=0,
            )
            levels.append(array)
        return cls(levels)

    @classmethod
    def open(cls, path: Path) -> LabelPyramid:
        """One that `create` has made; raises OSError or ValueError where it is not whole.

        What a killed process was writing is removed.
        """
        import zarr

        for unfinished in path.rglob("*.partial"):
            unfinished.unlink(missing_ok=True)
        try:
            group = zarr.open_group(path, mode="r+")
            names = sorted(group.array_keys(), key=int)
            levels = [group[name] for name in names]
        # What zarr comes to when its JSON is damaged.
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(f"{path}: expected a label image, its JSON is damaged") from error
        if not names:
            raise ValueError(f"{path}: expected a label image, got an empty group")
        return cls(levels)  # type: ignore[arg-type]

    def counts(self, classes: int) -> list[int]:
        """How many pixels every class has in the finest resolution."""
        finest = self._levels[0]
        height, width = finest.shape
        total = np.zeros(classes, np.int64)
        for tile in cut((height, width), max(finest.chunks)):
            labels = np.asarray(finest[tile.region])
            total += np.bincount(labels.ravel(), minlength=classes)
        found: list[int] = total.tolist()
        return found

    def write(self, tile: Tile, labels: Labels) -> None:
        """Put a tile's (H, W) labels into every resolution; OSError where the disk is full."""
        for level, array in enumerate(self._levels):
            step = 2**level
            rows, columns = (slice(a // step, -(-b // step)) for a, b in (tile.rows, tile.columns))
            array[rows, columns] = labels[::step, ::step]


def _level_count(shape: tuple[int, int], tile: int) -> int:
    """How many resolutions there are; a chunk of each stands for the same tile."""
    count = 1
    while count < LEVELS and tile % 2**count == 0 and min(tile, *shape) >> count >= SMALLEST:
        count += 1
    return count


def label_attributes(levels: int, class_names: Sequence[str]) -> dict[str, Any]:
    """OME's attributes of a label image of two axes whose pixels are halved from level to level.

    A pixel of level n is the first of the 2ⁿ × 2ⁿ pixels that it stands for: labels have no mean.
    """
    axes = [{"name": name, "type": "space"} for name in ("y", "x")]
    datasets = [
        {
            "path": str(level),
            "coordinateTransformations": [{"type": "scale", "scale": [2.0**level] * 2}],
        }
        for level in range(levels)
    ]
    palette = voc_palette()
    return {
        "version": "0.5",
        "multiscales": [{"name": "labels", "axes": axes, "datasets": datasets}],
        "image-label": {
            "colors": [
                {"label-value": k, "rgba": [*palette[k].tolist(), 255 if k else 0]}
                for k in range(len(class_names))
            ],
            "properties": [{"label-value": k, "class": name} for k, name in enumerate(class_names)],
        },
    }
