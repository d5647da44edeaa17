"""Label images as PNGs: class indices, by a palette in VOC's colours."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from napari_deepcrf.atomic import atomic_write
from napari_deepcrf.data.decoding import open_raster


def voc_palette() -> NDArray[np.uint8]:
    """The devkit's (256, 3) RGB colours: the bits of an index spread over the channels."""
    index = np.arange(256)
    palette = np.zeros((256, 3), dtype=np.uint8)
    for bit in range(8):
        for channel in range(3):
            palette[:, channel] |= (((index >> (3 * bit + channel)) & 1) << (7 - bit)).astype(
                np.uint8
            )
    return palette


def read_labels(path: Path | str) -> NDArray[np.uint8]:
    """(H, W) class indices of a palette or greyscale PNG; raises ValueError for other kinds."""
    with open_raster(Path(path), path) as image:
        mode = image.mode
        if mode in ("P", "L"):
            return np.asarray(image, dtype=np.uint8)
    raise ValueError(f"{path}: expected a palette or 8-bit grey PNG of class indices, got {mode}")


def write_labels(path: Path | str, labels: NDArray[np.integer[Any]]) -> None:
    """Write (H, W) class indices below 256 as a palette PNG in VOC's colours.

    The file appears whole or not at all. Raises ValueError for an index that does not fit.
    """
    content = encode_labels(labels)
    with atomic_write(path) as stream:
        stream.write(content)


def encode_labels(labels: NDArray[np.integer[Any]]) -> bytes:
    """What `write_labels` writes into the file; ValueError where a byte holds no label."""
    if labels.size and not (labels.min() >= 0 and labels.max() <= 255):
        raise ValueError(
            f"labels: expected class indices from 0 to 255, got {labels.min()} to {labels.max()}"
        )
    image = Image.fromarray(labels.astype(np.uint8)).convert("P")
    image.putpalette(voc_palette().tobytes())
    stream = io.BytesIO()
    image.save(stream, format="PNG")
    return stream.getvalue()
