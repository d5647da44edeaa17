"""Random scale, crop, flip and colour of training samples."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from napari_deepcrf.data.images import MIN_SIDE
from napari_deepcrf.data.samples import VOID, Sample


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """How training crops vary. Every range is uniform, the scale's in its logarithm."""

    crop: int = 306
    """Side of the square crop in pixels."""
    scale: tuple[float, float] = (0.75, 1.5)
    """Magnification of the image before cropping."""
    flip: float = 0.5
    """Probability of a left-right flip."""
    brightness: float = 0.0
    """Largest relative change of all grey levels."""
    contrast: float = 0.0
    """Largest relative change of the distance from the mean grey level."""
    saturation: float = 0.0
    """Largest relative change of the distance from each pixel's grey value."""

    def __post_init__(self) -> None:
        if self.crop < MIN_SIDE:
            raise ValueError(f"crop: expected at least {MIN_SIDE} pixels, got {self.crop}")
        low, high = self.scale
        if not 0 < low <= high:
            raise ValueError(f"scale: expected 0 < low ≤ high, got {self.scale}")
        if not 0 <= self.flip <= 1:
            raise ValueError(f"flip: expected a probability, got {self.flip}")
        for name in ("brightness", "contrast", "saturation"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name}: expected 0 ≤ value < 1, got {getattr(self, name)}")


@dataclass(frozen=True)
class CropGeometry:
    """A square window of an image, perhaps mirrored; it may reach over the image's edges.

    ``top``, ``left`` and ``side`` are in image pixels; the window becomes ``size`` × ``size``.
    """

    top: float
    left: float
    side: float
    size: int
    flip: bool

    @classmethod
    def sample(
        cls, shape: tuple[int, int], augmentation: Augmentation, rng: np.random.Generator
    ) -> CropGeometry:
        """A random window of an (H, W) image; inside it wherever it fits."""
        low, high = np.log(augmentation.scale)
        side = augmentation.crop / float(np.exp(rng.uniform(low, high)))
        top, left = (
            float(rng.uniform(min(0.0, slack), max(0.0, slack)))
            for slack in (shape[0] - side, shape[1] - side)
        )
        return cls(top, left, side, augmentation.crop, bool(rng.random() < augmentation.flip))

    def resample(
        self, pixels: NDArray[np.uint8], fill: int, method: Image.Resampling
    ) -> NDArray[np.uint8]:
        """The window of an (H, W[, C]) array as (size, size[, C]), ``fill`` outside the image."""
        height, width = pixels.shape[:2]
        factor = self.size / self.side
        target = []  # first and last + 1 row, then column, that lie inside the image
        for start, extent in ((self.top, height), (self.left, width)):
            # One at least, however thin the image.
            first = min(max(0, round(-start * factor)), self.size - 1)
            target += [first, max(first + 1, min(self.size, round((extent - start) * factor)))]
        y0, y1, x0, x1 = target
        box = (
            max(0.0, self.left + x0 / factor),
            max(0.0, self.top + y0 / factor),
            min(float(width), self.left + x1 / factor),
            min(float(height), self.top + y1 / factor),
        )
        result = np.full((self.size, self.size, *pixels.shape[2:]), fill, dtype=np.uint8)
        patch = Image.fromarray(pixels).resize((x1 - x0, y1 - y0), method, box=box)
        result[y0:y1, x0:x1] = np.asarray(patch)
        return result[:, ::-1] if self.flip else result


def jitter_colours(
    image: NDArray[np.uint8], augmentation: Augmentation, rng: np.random.Generator
) -> NDArray[np.float32]:
    """(H, W, 3) float32 in 0–255 with random brightness, contrast and saturation."""
    result = image.astype(np.float32)
    brightness, contrast, saturation = (
        1 + rng.uniform(-limit, limit)
        for limit in (augmentation.brightness, augmentation.contrast, augmentation.saturation)
    )
    grey = result.mean(axis=2, keepdims=True)
    mean = float(grey.mean())
    # Colours about their grey, then everything about the mean, then all levels.
    result = grey + saturation * (result - grey)
    result = brightness * (mean + contrast * (result - mean))
    clipped: NDArray[np.float32] = np.clip(result, 0, 255).astype(np.float32)
    return clipped


def augment(
    sample: Sample, augmentation: Augmentation, rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.uint8], CropGeometry]:
    """A random crop: (size, size, 3) float32 image in 0–255, (size, size) labels, its window."""
    shape = (sample.labels.shape[0], sample.labels.shape[1])
    window = CropGeometry.sample(shape, augmentation, rng)
    fill = int(sample.image.mean())
    image = window.resample(sample.image, fill, Image.Resampling.BILINEAR)
    labels = window.resample(sample.labels, VOID, Image.Resampling.NEAREST)
    return jitter_colours(image, augmentation, rng), labels, window
