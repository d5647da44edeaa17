"""Draws what each of the CRF's parameters does: ``python docs/figures/crf.py [FOLDER]``.

A photo of a cup from scikit-image, with the scores of a made-up network that knows roughly where
table, china, rim and coffee are, and errs in places. One row of pictures for every parameter and
one for the updates. All other parameters have their defaults, but the rows of the smoothness
kernel a weaker appearance kernel, which would hide it.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import PIL.Image
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, zoom
from skimage import data, segmentation

from napari_deepcrf import CRFParameters, DenseCRF
from napari_deepcrf.crf.potentials import scores_from_labels

Image = NDArray[np.uint8]
Labels = NDArray[np.int64]

COLOURS = np.array([[0.45, 0.55, 0.65], [0.85, 0.2, 0.2], [0.95, 0.95, 0.9], [0.95, 0.65, 0.1]])
"""Table, china, rim, coffee."""
DEFAULTS = CRFParameters()
WEAK_APPEARANCE = replace(DEFAULTS, w_bilateral=1)
ROWS: dict[str, tuple[str, tuple[float, ...]]] = {
    "w_spatial": ("w₁ = {:g}", (0.01, 3, 15, 60)),
    "theta_gamma": ("θγ = {:g} px", (1, 3, 9, 27)),
    "w_bilateral": ("w₂ = {:g}", (0.01, 3, 10, 40)),
    "theta_alpha": ("θα = {:g} px", (5, 20, 80, 320)),
    "theta_beta": ("θβ = {:g} levels", (2, 6, 13, 50)),
}
UPDATES = (0, 1, 2, 10)


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    image = photo()
    scores = rough_scores(image.shape[:2])
    beginning = {"photo": None, "network alone": 0, "after 5 updates": 5}
    figure, axes = row_of(len(beginning))
    for axis, (title, updates) in zip(axes, beginning.items(), strict=True):
        labels = None if updates is None else refined(scores, image, DEFAULTS, updates)
        show(axis, image, labels, title)
    save(figure, folder / "crf-start.png")
    for name, (title, values) in ROWS.items():
        figure, axes = row_of(len(values))
        for axis, value in zip(axes, values, strict=True):
            start = WEAK_APPEARANCE if name in ("w_spatial", "theta_gamma") else DEFAULTS
            changed = replace(start, **{name: value})
            mark = " (default)" if value == getattr(DEFAULTS, name) else ""
            show(axis, image, refined(scores, image, changed, 5), title.format(value) + mark)
        save(figure, folder / f"crf-{name.replace('_', '-')}.png")
    figure, axes = row_of(len(UPDATES))
    for axis, updates in zip(axes, UPDATES, strict=True):
        title = f"{updates} update{'s' if updates != 1 else ''}"
        show(axis, image, refined(scores, image, DEFAULTS, updates), title)
    save(figure, folder / "crf-updates.png")


def photo() -> Image:
    """(200, 300, 3): the cup at half its size."""
    return np.asarray(data.coffee()[::2, ::2])


def rough_scores(shape: tuple[int, int]) -> torch.Tensor:
    """(1, L, H, W): ellipses that are not quite right, blurred, with smooth noise on top."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    labels = np.ones(shape, np.int64)
    for label, (top, left, tall, wide) in enumerate(
        [(115, 136, 70, 88), (52, 142, 38, 66), (70, 142, 26, 44)], start=2
    ):
        labels[((y - top) / tall) ** 2 + ((x - left) / wide) ** 2 < 1] = label
    scores = scores_from_labels(torch.from_numpy(labels), 4, confidence=0.8).numpy()
    noise = np.random.default_rng(3).standard_normal(scores.shape)
    noise = gaussian_filter(noise, (0, 5, 5))
    mixed = gaussian_filter(scores, (0, 5, 5)) + noise / noise.std()
    return torch.from_numpy(mixed.astype(np.float32))[None]


def refined(scores: torch.Tensor, image: Image, parameters: CRFParameters, updates: int) -> Labels:
    pixels = torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float()
    with torch.no_grad():
        marginals = DenseCRF(parameters, iterations=updates)(scores, pixels)
    return np.asarray(marginals[0].argmax(0))


def row_of(count: int) -> tuple[Figure, list[Axes]]:
    figure, axes = plt.subplots(1, count, figsize=(2.6 * count, 2.0), dpi=110, layout="constrained")
    return figure, list(axes)


def show(axis: Axes, image: Image, labels: Labels | None, title: str) -> None:
    """The photo, tinted by the labels and with their borders drawn."""
    picture = image / 255
    if labels is not None:
        grey = picture.mean(2, keepdims=True)
        picture = 0.45 * grey + 0.55 * COLOURS[labels]
        large = zoom(labels, 3, order=0)
        picture = zoom(picture, (3, 3, 1), order=0)
        picture[segmentation.find_boundaries(large, mode="inner")] = 0
    axis.imshow(picture)
    axis.set_title(title, fontsize=10)
    axis.set_axis_off()


def save(figure: Figure, path: Path) -> None:
    """As a PNG of 256 colours, which is a third as large."""
    figure.canvas.draw()
    pixels = PIL.Image.fromarray(np.asarray(figure.canvas.buffer_rgba())).convert("RGB")
    pixels.quantize(256).save(path, optimize=True)
    plt.close(figure)


if __name__ == "__main__":
    plt.switch_backend("agg")
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1] / "images")
