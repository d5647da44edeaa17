"""The command line run in this process, on small files."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from napari_deepcrf.cli import main
from napari_deepcrf.crf import CRFParameters, DenseCRF
from napari_deepcrf.data.voc import VOC_CLASSES
from napari_deepcrf.models import DeepCRF
from napari_deepcrf.models.unary import UnaryNetwork
from napari_deepcrf.models.vgg16 import VGG16


@dataclass(frozen=True)
class Result:
    """What one run of the command left."""

    exit_code: int
    out: str
    err: str


@pytest.fixture
def command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Result]:
    """Run `napari-deepcrf` with some arguments."""

    def run(*arguments: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["napari-deepcrf", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            main()
        captured = capsys.readouterr()
        return Result(int(caught.value.code or 0), captured.out, captured.err)

    return run


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """A 23 × 31 RGB image file."""
    path = tmp_path / "photo.png"
    pixels = np.random.default_rng(0).integers(0, 256, (23, 31, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def tiny_model(tmp_path: Path) -> Path:
    """A checkpoint with random weights."""
    torch.manual_seed(0)
    network = UnaryNetwork(VGG16(21, width=0.06, head="smallfov"), input_size=32)
    path = tmp_path / "tiny.safetensors"
    DeepCRF(network, DenseCRF(CRFParameters(), backend="torch"), VOC_CLASSES).save(path)
    return path
