"""What the CPU benchmark runs: a photo, synthetic unaries, the peer, and this package."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray

from napari_deepcrf.crf import CRFParameters, DenseCRF

UPDATES = 5
PARAMETERS = CRFParameters(
    w_spatial=3, theta_gamma=3, w_bilateral=10, theta_alpha=80, theta_beta=13
)
Array = NDArray[np.float32]


@dataclass(frozen=True)
class Work:
    """A photo (H, W, 3) uint8 and an energy (L, H, W): -log softmax of smooth noise."""

    image: NDArray[np.uint8]
    energy: Array

    @property
    def tensors(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Scores (1, L, H, W) and image (1, 3, H, W), as the CRF takes them."""
        image = torch.from_numpy(self.image.transpose(2, 0, 1).astype(np.float32))
        return torch.from_numpy(-self.energy)[None], image[None]

    def crop(self, top: int, left: int, height: int, width: int) -> Work:
        """A part of it, contiguous."""
        window = slice(top, top + height), slice(left, left + width)
        image, energy = self.image[window], self.energy[(slice(None), *window)]
        return Work(np.ascontiguousarray(image), np.ascontiguousarray(energy))


@lru_cache(maxsize=1)
def work(height: int, width: int, labels: int) -> Work:
    """scikit-image's astronaut at this size, with the unaries of so many labels."""
    from scipy.ndimage import gaussian_filter
    from skimage import data, transform

    photo = transform.resize(data.astronaut(), (height, width), order=1, anti_aliasing=True)
    generator = np.random.default_rng(0)
    energy = np.empty((labels, height, width), np.float32)
    for plane in energy:
        noise = generator.standard_normal((height, width), dtype=np.float32)
        gaussian_filter(noise, 12, output=plane)
    energy *= -2 / energy.std()
    top = energy.min(0)
    energy += np.log(np.exp(top - energy).sum(0)) - top
    return Work(np.round(photo * 255).astype(np.uint8), energy)


def peer(given: Work) -> Array:
    """Marginals of pydensecrf (L, H, W), lattices and all."""
    from pydensecrf.densecrf import DenseCRF2D

    p, (labels, height, width) = PARAMETERS, given.energy.shape
    crf = DenseCRF2D(width, height, labels)
    crf.setUnaryEnergy(given.energy.reshape(labels, -1))
    crf.addPairwiseGaussian(sxy=p.theta_gamma, compat=p.w_spatial)
    crf.addPairwiseBilateral(
        sxy=p.theta_alpha, srgb=p.theta_beta, rgbim=given.image, compat=p.w_bilateral
    )
    return np.asarray(crf.inference(UPDATES), np.float32).reshape(labels, height, width)


def ours(given: Work, quality: str = "fast") -> Callable[[], Array]:
    """Our run to the same marginals (L, H, W), lattices and all."""
    scores, image = given.tensors
    crf = DenseCRF(PARAMETERS, iterations=UPDATES, quality=quality, backend="numba")

    def run() -> Array:
        with torch.inference_mode():
            marginals: torch.Tensor = crf(scores, image)[0]
        return marginals.numpy()

    return run


def learning(given: Work, quality: str = "fast") -> Callable[[], object]:
    """Forward and backward, with the gradients of scores, weights and widths."""
    scores, image = given.tensors
    crf = DenseCRF(PARAMETERS, iterations=UPDATES, quality=quality, backend="numba")

    def run() -> object:
        leaf = scores.clone().requires_grad_()
        crf(leaf, image)[:, 0].log().mean().backward()
        return leaf.grad

    return run


def slider(given: Work, changed: str) -> Callable[[], NDArray[np.int64]]:
    """Labels (H, W) after one slider moved: lattices whose kernel it leaves alone are reused."""
    scores, image = given.tensors
    before = float(getattr(PARAMETERS, changed))
    prepared = DenseCRF(PARAMETERS, backend="numba").prepare(image)
    moved = 0

    def run() -> NDArray[np.int64]:
        nonlocal prepared, moved
        moved += 1
        values = PARAMETERS.to_dict() | {changed: before + 0.01 * moved}
        parameters = CRFParameters.from_dict(values)
        crf = DenseCRF(parameters, iterations=UPDATES, backend="numba")
        with torch.inference_mode():
            prepared = crf.prepare(image, previous=prepared)
            marginals: torch.Tensor = crf(scores, image, prepared=prepared)[0]
        return marginals.argmax(0).numpy()

    return run
