"""A brute-force dense CRF in float64 NumPy: every pair of pixels, nothing shared with the code."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.special import softmax

from napari_deepcrf.crf import CRFParameters

Array = NDArray[np.float64]


@pytest.fixture(autouse=True)
def one_thread():
    """Small problems run faster on one thread, and the same on every machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@dataclass
class BruteForceCRF:
    """The dense CRF of one image (C, *S) by definition [paper, eq. 3-5, 9]."""

    params: CRFParameters
    normalization: str = "symmetric"
    self_term: bool = True
    compatibility: Array | None = None

    def matrix(self, image: Array) -> Array:
        """(N, N), both kernels weighted and normalised."""
        p = self.params
        shape = image.shape[1:]
        place = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
        place = place.reshape(-1, len(shape)).astype(float)
        colour = image.reshape(len(image), -1).T.astype(float)
        spatial = place / np.asarray(p.theta_gamma)
        bilateral = np.hstack(
            [place / np.asarray(p.theta_alpha), colour / np.asarray(p.theta_beta)]
        )
        return p.w_spatial * self._kernel(spatial) + p.w_bilateral * self._kernel(bilateral)

    def _kernel(self, features: Array) -> Array:
        kernel = np.ones((len(features), len(features)))
        for column in features.T:
            kernel *= np.exp(-0.5 * (column[:, None] - column) ** 2)
        total = kernel.sum(1)
        if self.normalization == "symmetric":
            kernel = kernel / np.sqrt(total[:, None] * total)
        elif self.normalization == "before":
            kernel = kernel / total
        elif self.normalization == "after":
            kernel = kernel / total[:, None]
        else:
            kernel = kernel / total.mean()
        if not self.self_term:
            np.fill_diagonal(kernel, 0)
        return kernel

    def trace(self, scores: Array, image: Array, iterations: int = 5) -> Array:
        """(T+1, L, *S)."""
        unary = scores.reshape(len(scores), -1).T.astype(float)
        matrix = self.matrix(image)
        mu = np.eye(len(scores)) if self.compatibility is None else self.compatibility
        marginals = [softmax(unary, 1)]
        for _ in range(iterations):
            marginals.append(softmax(unary + matrix @ marginals[-1] @ mu, 1))
        return np.stack([q.T.reshape(scores.shape) for q in marginals])


@pytest.fixture
def brute_force() -> type[BruteForceCRF]:
    return BruteForceCRF


@pytest.fixture
def photo() -> Callable[..., NDArray[np.float32]]:
    """A crop (C, H, W) of one of scikit-image's photos."""

    def crop(
        name: str = "astronaut",
        height: int = 40,
        width: int = 53,
        corner: tuple[int, int] = (30, 180),
    ) -> NDArray[np.float32]:
        from skimage import data

        image = getattr(data, name)()
        image = image[:, :, None] if image.ndim == 2 else image
        y, x = corner
        part = image[y : y + 2 * height : 2, x : x + 2 * width : 2].astype(np.float32)
        return np.ascontiguousarray(part.transpose(2, 0, 1))

    return crop


@pytest.fixture
def smooth_scores() -> Callable[..., NDArray[np.float32]]:
    """Scores (L, H, W) that change slowly over the image, like a network's."""

    def draw(labels: int, height: int, width: int, seed: int = 0) -> NDArray[np.float32]:
        noise = np.random.default_rng(seed).standard_normal((labels, height, width))
        noise = gaussian_filter(noise, (0, 5, 5))
        return (2 * noise / noise.std()).astype(np.float32)

    return draw


@pytest.fixture
def random() -> Callable[..., torch.Tensor]:
    """Normal numbers of a given shape from a fixed seed, float64."""

    def draw(*shape: int, seed: int = 0) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    return draw
