"""Labels of a large image as an OME-Zarr 0.5 label image that is written tile by tile."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_deepcrf.data.voc import voc_palette
from napari_deepcrf.inference.tiling import Tile, cut

if TYPE_CHECKING:
    import zarr

LEVELS = 5
"""At most so many resolutions, each half the one before, as long as a chunk keeps 64 pixels."""
SMALLEST_CHUNK = 64


class LabelPyramid:
    """An (H, W) label image on disk with a chunk of every resolution for each tile.

    As a tile owns its chunks, tiles can be written at once and in any order, and a chunk is on the
    disk whole or not at all. What is not written yet reads as 0.
    """

    def __init__(self, levels: Sequence[zarr.Array[Any]]) -> None:
        self._levels = tuple(levels)

    @classmethod
    def create(
        cls,
        path: Path,
        shape: tuple[int, int],
        *,
        tile: int,
        class_names: Sequence[str],
        attributes: dict[str, Any],
    ) -> LabelPyramid:
        """Make the folder of an H × W label image.

        ``attributes`` are kept beside OME's. Raises OSError where the folder cannot be made or is
        there already.
        """
        import zarr

        count = 1
        while count < LEVELS and tile % 2**count == 0 and tile >> count >= SMALLEST_CHUNK:
            count += 1
        path.mkdir(parents=True)
        group = zarr.create_group(
            path, attributes={"ome": label_attributes(count, class_names), **attributes}
        )
        for level in range(count):
            size = tuple(-(-n // 2**level) for n in shape)
            group.create_array(
                str(level),
                shape=size,
                dtype=np.uint8 if len(class_names) <= 256 else np.uint16,
                chunks=(tile >> level, tile >> level),
                dimension_names=("y", "x"),
                fill_value=0,
            )
        return cls.open(path)

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
        for tile in cut((height, width), finest.chunks[0]):
            labels = np.asarray(finest[tile.region])
            total += np.bincount(labels.ravel(), minlength=classes)
        found: list[int] = total.tolist()
        return found

    def write(self, tile: Tile, labels: NDArray[np.unsignedinteger[Any]]) -> None:
        """Put a tile's (H, W) labels into every resolution; OSError where the disk is full."""
        for level, array in enumerate(self._levels):
            step = 2**level
            rows, columns = (slice(a // step, -(-b // step)) for a, b in (tile.rows, tile.columns))
            array[rows, columns] = labels[::step, ::step]


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
                {"label-value": k, "rgba": [*palette[k % len(palette)].tolist(), 255 if k else 0]}
                for k in range(len(class_names))
            ],
            "properties": [{"label-value": k, "class": name} for k, name in enumerate(class_names)],
        },
    }
