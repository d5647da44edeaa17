"""One image's labels as an OME-Zarr 0.5 label image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from napari_deepcrf.inference.label_pyramid import label_attributes

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
        levels.append(levels[-1][::2, ::2])
    group = zarr.create_group(
        MemoryStore(stored), attributes={"ome": label_attributes(len(levels), class_names)}
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
