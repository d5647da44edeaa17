"""ScribbleSup's stroke files (Lin et al. 2016) as annotations, and VOC annotated by them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from napari_deepcrf.data.decoding import open_raster
from napari_deepcrf.data.samples import VOID, DatasetError
from napari_deepcrf.data.voc import VOCDataset

FARTHEST = 1 << 16
"""Pixels from the image's corner; drawing takes a step for every pixel up to there."""
ENDING = "_scribble"
"""What a stroke file's name may have behind that of its image."""


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
            raise ValueError(f"{path}: line {number}: expected numbers ({error})") from error
        if not 0 <= label < num_classes:
            raise ValueError(
                f"{path}: line {number}: class {label} is out of range, "
                f"expected 0 to {num_classes - 1}"
            )
        if len(coordinates) < 2 or len(coordinates) % 2:
            raise ValueError(
                f"{path}: line {number}: expected pairs of coordinates, got {len(coordinates)} "
                "numbers"
            )
        if max(map(abs, coordinates)) > FARTHEST:
            raise ValueError(
                f"{path}: line {number}: expected coordinates within ±{FARTHEST}, "
                f"got {max(coordinates, key=abs)}"
            )
        points = list(zip(coordinates[::2], coordinates[1::2], strict=True))
        draw.line(points, fill=label, width=width)
        for x, y in points:  # round ends, and strokes of a single point
            radius = (width - 1) / 2
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=label)
    return np.asarray(canvas).copy()


class StrokesDataset(VOCDataset):
    """One split of VOC whose labels are strokes: all other pixels are `VOID` and leave the loss.

    ``strokes`` is a folder with a file ``NAME_scribble.txt`` or ``NAME.txt`` for every image of the
    split, as `read_strokes` takes them, with VOC's class indices. Raises `DatasetError` where files
    are missing, which lists everything else that is wrong, too.
    """

    def __init__(self, root: Path | str, split: str, strokes: Path | str) -> None:
        self._strokes = Path(strokes)
        if not self._strokes.is_dir():
            raise DatasetError(str(strokes), ["expected a folder of stroke files"])
        super().__init__(root, split)

    def _find_labels(self, name: str) -> Path:
        places = [self._strokes / f"{name}{ending}.txt" for ending in (ENDING, "")]
        return next((path for path in places if path.is_file()), places[0])

    def _read_labels(self, path: Path) -> NDArray[np.uint8]:
        photo = self.root / "JPEGImages" / f"{path.stem.removesuffix(ENDING)}.jpg"
        with open_raster(photo, photo) as image:
            shape = (image.height, image.width)
        return read_strokes(path, shape, num_classes=len(self.class_names))
