"""Draw what voc-compact makes of photographs that it never saw: OUT.jpg."""

import sys

import numpy as np
from PIL import Image
from skimage import data, transform

from napari_deepcrf.data.label_files import voc_palette
from napari_deepcrf.inference import Predictor

PHOTOS = ("chelsea", "astronaut", "camera", "coffee", "rocket", "immunohistochemistry")
SIDE = 240


def panel(predictor: Predictor, name: str) -> np.ndarray:
    """(SIDE, 2·SIDE, 3): the photograph, and its labels in VOC's colours over it."""
    image = getattr(data, name)()
    image = np.atleast_3d(image)[..., :3] * np.ones(3, np.uint8)
    labels = predictor.segment(image).labels
    colours = np.asarray(voc_palette())[labels]
    shown = np.where(labels[..., None] > 0, 0.4 * image + 0.6 * colours, 0.5 * image + 110)
    out = np.full((SIDE, 2 * SIDE, 3), 255, np.uint8)
    for number, picture in enumerate((image, shown)):
        height, width = (round(side * SIDE / max(image.shape)) for side in image.shape[:2])
        small = transform.resize(
            picture / 255, (height, width), order=1, anti_aliasing=True, mode="edge"
        )
        left = number * SIDE
        out[:height, left : left + width] = np.clip(255 * small, 0, 255)
    return out


def main(path: str) -> None:
    """Three rows of two panels."""
    predictor = Predictor("voc-compact", device="cpu")
    panels = [panel(predictor, name) for name in PHOTOS]
    rows = [np.concatenate(panels[n : n + 2], axis=1) for n in range(0, len(panels), 2)]
    Image.fromarray(np.concatenate(rows)).save(path, quality=85)


if __name__ == "__main__":
    main(sys.argv[1])
