"""A small model and images for every test of this folder."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

import napari_deepcrf as ndc
from napari_deepcrf.inference import Predictor
from napari_deepcrf.models import VGG16, DeepCRF, UnaryNetwork


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Small problems gain nothing from threads, which only contend on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def model() -> DeepCRF:
    """Three classes, red, green and blue, by the brightest of each neighbourhood."""
    backbone = VGG16(3, width=0.001, head="smallfov")
    with torch.no_grad():
        for layer in backbone.modules():
            if isinstance(layer, torch.nn.Conv2d):
                layer.weight.zero_()
                layer.bias.zero_()
                middle = layer.kernel_size[0] // 2
                for channel in range(3):
                    layer.weight[channel, channel, middle, middle] = 1
        backbone.features[0].conv.bias += 3  # so that no rectifier cuts anything off
        backbone.score.bias -= torch.tensor([4.4, 4.54, 4.91])  # each class on a third of the photo
    crf = ndc.DenseCRF(
        ndc.CRFParameters(theta_gamma=1.5, w_bilateral=8, theta_alpha=12), iterations=3
    )
    network = UnaryNetwork(backbone, input_size=100)
    return DeepCRF(network, crf, ("red", "green", "blue"), name="colours").eval()


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
