"""A small random model and small random pictures: these tests look at files, not at quality."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from napari_deepcrf.batch.run import (
    BatchEvent,
    BatchOptions,
    ImageDone,
    ImageFailed,
    segment_files,
)
from napari_deepcrf.crf import CRFParameters, DenseCRF
from napari_deepcrf.models import DeepCRF
from napari_deepcrf.models.unary import UnaryNetwork
from napari_deepcrf.models.vgg16 import VGG16

Run = Callable[..., "tuple[list[ImageDone], list[ImageFailed]]"]


def make_model(seed: int) -> DeepCRF:
    torch.manual_seed(seed)
    network = UnaryNetwork(VGG16(3, width=1 / 32, head="smallfov"), input_size=33)
    crf = DenseCRF(CRFParameters(theta_alpha=20), iterations=2, backend="torch")
    return DeepCRF(network, crf, ("background", "cat", "dog"), name="tiny").eval()


@pytest.fixture(scope="session")
def model() -> DeepCRF:
    return make_model(0)


@pytest.fixture(scope="session")
def other_model() -> DeepCRF:
    return make_model(1)


@pytest.fixture
def write_image() -> Callable[..., Path]:
    """Write a file of random pixels, 23 rows and 31 columns."""

    def write(path: Path, seed: int, mode: str = "RGB") -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(seed).integers(0, 256, (23, 31, 3), dtype=np.uint8)
        Image.fromarray(pixels).convert(mode).save(path)
        return path

    return write


@pytest.fixture
def photos(tmp_path: Path, write_image) -> list[Path]:
    """Four image files."""
    return [write_image(tmp_path / "photos" / f"{n}.png", n) for n in range(4)]


@pytest.fixture
def run(model: DeepCRF) -> Run:
    """Segment files into a folder; returns the images that were done and those that failed."""

    def segment(images, out, *, model=model, **options):
        events: list[BatchEvent] = list(segment_files(images, out, model, BatchOptions(**options)))
        return (
            [event for event in events if isinstance(event, ImageDone)],
            [event for event in events if isinstance(event, ImageFailed)],
        )

    return segment


@pytest.fixture(scope="session")
def files_in() -> Callable[[Path], dict[str, bytes]]:
    """Every file below a folder, records left out, by its path in it."""

    def read(folder: Path) -> dict[str, bytes]:
        return {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in sorted(folder.rglob("*"))
            if path.is_file() and ".deepcrf" not in path.parts
        }

    return read
