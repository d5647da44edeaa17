"""Reading image files into arrays."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from napari_deepcrf.data.decoding import not_an_image, open_raster

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


def read_rgb(path: Path | str) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 RGB of an image file; raises ValueError where it is none."""
    with open_raster(Path(path), path) as image:
        return np.asarray(image.convert("RGB"), dtype=np.uint8)


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
