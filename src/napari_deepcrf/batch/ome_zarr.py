"""One image's labels as an OME-Zarr 0.5 label image, made in memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from napari_deepcrf.inference.label_pyramid import LabelPyramid
from napari_deepcrf.inference.tiling import cut

if TYPE_CHECKING:
    from zarr.core.buffer import Buffer

CHUNK = 1024


def encode(labels: NDArray[np.uint8], class_names: Sequence[str]) -> dict[str, bytes]:
    """The files of an OME-Zarr group by their paths: resolutions, class names, VOC's colours."""
    from zarr.storage import MemoryStore

    stored: dict[str, Buffer] = {}
    height, width = labels.shape
    pyramid = LabelPyramid.create(
        MemoryStore(stored), (height, width), tile=CHUNK, class_names=class_names
    )
    for tile in cut((height, width), CHUNK):
        pyramid.write(tile, labels[tile.region])
    return {name: buffer.to_bytes() for name, buffer in stored.items()}
