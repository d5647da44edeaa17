"""One image's labels as an OME-Zarr 0.5 label image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_deepcrf.data.voc import voc_palette

if TYPE_CHECKING:
    from zarr.core.buffer import Buffer

CHUNK = 1024
LEVELS = 4
"""At most so many resolutions, halved as long as the shorter side keeps 64 pixels."""


def encode(labels: NDArray[np.uint8], class_names: Sequence[str]) -> dict[str, bytes]:
    """The files of an OME-Zarr group by their paths: resolutions, class names, VOC's colours."""
    import zarr
    from zarr.storage import MemoryStore

    stored: dict[str, Buffer] = {}
    levels = [labels]
    while len(levels) < LEVELS and min(levels[-1].shape) >= 128:
        levels.append(levels[-1][::2, ::2])  # a label is one of the pixels', never a mean of them
    group = zarr.create_group(
        MemoryStore(stored), attributes={"ome": _attributes(len(levels), class_names)}
    )
    for number, level in enumerate(levels):
        array = group.create_array(
            str(number),
            shape=level.shape,
            dtype=level.dtype,
            chunks=tuple(min(CHUNK, side) for side in level.shape),
            dimension_names=("y", "x"),
        )
        array[:] = level
    return {name: buffer.to_bytes() for name, buffer in stored.items()}


def _attributes(levels: int, class_names: Sequence[str]) -> dict[str, Any]:
    axes = [{"name": name, "type": "space"} for name in ("y", "x")]
    datasets = [_dataset(number) for number in range(levels)]
    return {
        "version": "0.5",
        "multiscales": [{"name": "labels", "axes": axes, "datasets": datasets}],
        "image-label": {
            "colors": [
                {"label-value": k, "rgba": [*colour, 0 if k == 0 else 255]}
                for k, colour in enumerate(voc_palette()[: len(class_names)].tolist())
            ],
            "properties": [{"label-value": k, "class": name} for k, name in enumerate(class_names)],
        },
    }


def _dataset(number: int) -> dict[str, Any]:
    """Level n in pixels of the image; its first pixel lies where the image's first does."""
    scale = [float(2**number)] * 2
    return {
        "path": str(number),
        "coordinateTransformations": [{"type": "scale", "scale": scale}],
    }
