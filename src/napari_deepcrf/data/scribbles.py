"""ScribbleSup's stroke files (Lin et al. 2016) as annotations."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from napari_deepcrf.data.samples import VOID

FARTHEST = 1 << 16
"""Pixels from the image's corner; drawing takes a step for every pixel up to there."""


def read_strokes(
    path: Path | str, shape: tuple[int, int], *, num_classes: int, width: int = 3
) -> NDArray[np.uint8]:
    """(H, W) class indices along the strokes of a file, `VOID` elsewhere.

    One stroke a line, ``class_id,x0,y0,x1,y1,…`` in pixels, drawn ``width`` pixels wide; later
    strokes cover earlier ones. Points outside the image are allowed, as the published files have
    them, up to `FARTHEST`. Raises ValueError that names the file and line for anything else.
    """
    canvas = Image.new("L", (shape[1], shape[0]), VOID)
    draw = ImageDraw.Draw(canvas)
    for number, line in enumerate(Path(path).read_bytes().splitlines(), start=1):
        if not line.strip():
            continue
        try:
            label, *coordinates = (int(float(value)) for value in line.split(b","))
        except (ValueError, OverflowError) as error:
            raise ValueError(f"{path}, line {number}: expected numbers ({error})") from error
        if not 0 <= label < num_classes:
            raise ValueError(
                f"{path}, line {number}: class {label} is out of range, "
                f"expected 0 to {num_classes - 1}"
            )
        if len(coordinates) < 2 or len(coordinates) % 2:
            raise ValueError(
                f"{path}, line {number}: expected pairs of coordinates, got {len(coordinates)} "
                "numbers"
            )
        if max(map(abs, coordinates)) > FARTHEST:
            raise ValueError(
                f"{path}, line {number}: expected coordinates within ±{FARTHEST}, "
                f"got {max(coordinates, key=abs)}"
            )
        points = list(zip(coordinates[::2], coordinates[1::2], strict=True))
        draw.line(points, fill=label, width=width)
        for x, y in points:  # round ends, and strokes of a single point
            radius = (width - 1) / 2
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=label)
    return np.asarray(canvas).copy()
