"""A small model and images for every test of this folder."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

import napari_deepcrf as ndc
from napari_deepcrf.inference import Predictor
from napari_deepcrf.models import VGG16, DeepCRF, UnaryNetwork


@pytest.fixture(scope="session")
def model() -> DeepCRF:
    """Three classes, a thin network on 40 pixels, a CRF of two narrow kernels."""
    torch.manual_seed(0)
    backbone = VGG16(3, width=0.06, head="smallfov")
    torch.nn.init.normal_(backbone.score.weight, std=2)
    crf = ndc.DenseCRF(
        ndc.CRFParameters(theta_gamma=1.5, w_bilateral=4, theta_alpha=12), iterations=3
    )
    return DeepCRF(UnaryNetwork(backbone, input_size=40), crf, ("sky", "sea", "sand"))


@pytest.fixture(scope="session")
def predictor(model) -> Predictor:
    """The model on the CPU."""
    return Predictor(model, device="cpu")


@pytest.fixture(scope="session")
def photo() -> np.ndarray:
    """(203, 331, 3) uint8: soft blobs of colour with edges and noise."""
    rng = np.random.default_rng(0)
    soft = gaussian_filter(rng.normal(size=(203, 331, 3)), (9, 9, 0))
    levels = 120 + 60 * np.sign(soft) + 300 * soft + rng.normal(scale=5, size=soft.shape)
    return levels.clip(0, 255).astype(np.uint8)
