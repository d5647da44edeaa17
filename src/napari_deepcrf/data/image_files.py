"""Reading an image file into an array, and writing labels as a PNG with VOC's colours."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from napari_deepcrf.atomic import atomic_write
from napari_deepcrf.data.decoding import not_an_image, open_raster
from napari_deepcrf.data.voc import voc_palette

# Modes whose pixels are the image's own values; PIL turns every other one into RGB.
_NATIVE_MODES = ("L", "RGB", "RGBA", "1", "I;16", "I;16B", "I", "F")


def read_image(path: Path | str) -> NDArray[Any]:
    """The pixels of an image file: (H, W) or (H, W, C), in the file's own type.

    PNG, JPEG and the other formats of `RASTER_FORMATS`; TIFF also with 16 bits a channel or
    floats. The orientation tag of photographs is left alone, as napari does, so that labels fit
    the layer.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ValueError
        The file is no image, is broken, or has more pixels than Pillow's limit for
        decompression. A TIFF may have more where the file itself is as large.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such image file")
    with path.open("rb") as stream:
        return decode_image(stream, path)


def decode_image(stream: BinaryIO, path: Path | str) -> NDArray[Any]:
    """`read_image` of a file's content; ``path`` tells its kind and is named in errors."""
    if Path(path).suffix.lower() in (".tif", ".tiff"):
        return _decode_tiff(stream, path)
    with open_raster(stream, path) as image:
        return np.asarray(image if image.mode in _NATIVE_MODES else image.convert("RGB"))


def _decode_tiff(stream: BinaryIO, path: Path | str) -> NDArray[Any]:
    import tifffile

    size = stream.seek(0, io.SEEK_END)
    stream.seek(0)
    try:
        with tifffile.TiffFile(stream) as file:
            series = file.series[0]
            if series.size > _most_pixels() and series.nbytes > size:
                raise ValueError(f"{series.size} samples exceed the limit of {_most_pixels()}")
            array = np.asarray(series.asarray())
    # tifffile, too, raises whatever broken input leads it to.
    except Exception as error:
        raise not_an_image(path, error) from error
    # Samples stored plane by plane, which tifffile leaves in front.
    return np.moveaxis(array, 0, 2) if series.axes == "SYX" else array


def _most_pixels() -> float:
    """Pillow's limit, above which it takes a file for a decompression bomb."""
    return 2 * Image.MAX_IMAGE_PIXELS if Image.MAX_IMAGE_PIXELS else float("inf")


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
