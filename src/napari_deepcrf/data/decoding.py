"""Opening pictures with Pillow: only plain raster formats, and every failure names the file."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from PIL import Image, UnidentifiedImageError
from PIL.PngImagePlugin import PngImageFile

from napari_deepcrf.messages import first_line

RASTER_FORMATS = ("PNG", "JPEG", "JPEG2000", "BMP", "GIF", "TIFF", "WEBP", "PPM", "TGA", "PCX")
"""What Pillow decodes by itself. It tells formats by their content, and hands some, such as
PostScript, to other programs, which would run what the file says."""

_DEFLATE = 1032
"""Bytes that one byte can inflate to at most."""


@contextmanager
def open_raster(source: Path | BinaryIO, path: Path | str) -> Iterator[Image.Image]:
    """A picture whose header is read; ``path`` is named in errors.

    Whatever the block and the decoder raise, down to `MemoryError` and Pillow's error for
    decompression bombs, becomes a ValueError of one line; FileNotFoundError stays.
    """
    try:
        with Image.open(source, formats=RASTER_FORMATS) as image:
            if isinstance(image, PngImageFile):
                _check_png(image)
            yield image
    except FileNotFoundError:
        raise
    # Decoders raise whatever their broken input leads to: SyntaxError, struct.error, KeyError …
    except Exception as error:
        raise not_an_image(path, error) from error


def _check_png(image: PngImageFile) -> None:
    """Refuse a size that the file cannot hold: Pillow gives zeros for rows that are not there."""
    assert image.fp is not None
    at = image.fp.tell()
    held = image.fp.seek(0, io.SEEK_END) * _DEFLATE
    image.fp.seek(at)
    if image.width * image.height / 8 > held:  # a pixel takes a bit at least
        raise ValueError(f"{image.width}×{image.height} pixels cannot be in so small a file")


def not_an_image(path: Path | str, error: Exception) -> ValueError:
    """The error, in one line, for a file whose decoder raised ``error``."""
    # Whose own message repeats the path.
    unknown = isinstance(error, UnidentifiedImageError)
    reason = "no known format" if unknown else first_line(error)
    return ValueError(f"{path}: expected an image file; reading it failed: {reason}")
