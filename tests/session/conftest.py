"""A small random model: these tests look at the session, not at quality."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from napari_deepcrf.crf import CRFParameters, DenseCRF
from napari_deepcrf.models import DeepCRF
from napari_deepcrf.models.unary import UnaryNetwork
from napari_deepcrf.models.vgg16 import VGG16
from napari_deepcrf.session import CRFSettings, ImageSource, Session


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Small problems gain nothing from threads, which only contend on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def model() -> DeepCRF:
    torch.manual_seed(0)
    network = UnaryNetwork(VGG16(3, width=1 / 32, head="smallfov"), input_size=65)
    crf = DenseCRF(CRFParameters(theta_alpha=20, theta_beta=15), iterations=3)
    return DeepCRF(network, crf, ("background", "cat", "dog"), name="tiny").eval()


@pytest.fixture
def image() -> ImageSource:
    pixels = np.random.default_rng(1).integers(0, 256, (41, 53, 3), dtype=np.uint8)
    return ImageSource(key="a", name="a", shape=(41, 53), read=lambda: pixels)


@pytest.fixture
def session(model: DeepCRF, image: ImageSource) -> Session:
    session = Session(CRFSettings(parameters=CRFParameters()), device="cpu")
    session.choose_model("tiny", model)
    session.choose_image(image)
    return session
