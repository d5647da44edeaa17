"""A tiny dataset in VOC's layout, and networks narrow enough for it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from napari_deepcrf.crf import CRFParameters, DenseCRF
from napari_deepcrf.data.label_files import voc_palette
from napari_deepcrf.data.transforms import Augmentation
from napari_deepcrf.data.voc import VOC_CLASSES
from napari_deepcrf.models import DeepCRF
from napari_deepcrf.models.unary import UnaryNetwork
from napari_deepcrf.models.vgg16 import VGG16
from napari_deepcrf.training.config import (
    JointStage,
    NetworkConfig,
    TrainConfig,
    UnaryStage,
    named_config,
)

CAT, COW = 8, 10


def write_voc(root: Path, names: list[str], seed: int = 0) -> None:
    """Noisy grey images with a bright (cat) or dark (cow) rectangle, odd sizes."""
    rng = np.random.default_rng(seed)
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        height, width = 41 + 2 * (number % 3), 63 - 2 * (number % 2)
        labels = np.zeros((height, width), np.uint8)
        top, left = rng.integers(4, 12, 2)
        labels[top : top + 22, left : left + 30] = (CAT, COW)[number % 2]
        grey = np.choose((labels == CAT) + 2 * (labels == COW), (128, 235, 20))
        image = np.clip(grey[..., None] + rng.normal(0, 12, (height, width, 3)), 0, 255)
        labels[0] = 255
        Image.fromarray(image.astype(np.uint8)).save(root / f"JPEGImages/{name}.jpg", quality=95)
        png = Image.fromarray(labels).convert("P")
        png.putpalette(voc_palette().tobytes())
        png.save(root / f"SegmentationClass/{name}.png")


@pytest.fixture
def voc_root(tmp_path: Path) -> Path:
    """Four training and two validation images."""
    root = tmp_path / "VOC2012"
    names = [f"2007_{n:06d}" for n in range(6)]
    write_voc(root, names)
    lists = root / "ImageSets/Segmentation"
    (lists / "train.txt").write_text("\n".join(names[:4]) + "\n")
    (lists / "val.txt").write_text("\n".join(names[4:]) + "\n")
    return root


@pytest.fixture
def tiny_unary() -> UnaryStage:
    """A few small steps of stage 1 with everything that a resume must restore."""
    return UnaryStage(
        iterations=6,
        batch_size=3,
        copy_size=48,
        augmentation=Augmentation(crop=41, scale=(0.8, 1.25), brightness=0.1),
        optimizer="adamw",
        learning_rate=3e-3,
        top_learning_rate=3e-3,
        average=0.9,
        loss_stride=2,
        warmup=2,
        decay=2,
        validate_every=3,
        checkpoint_every=2,
    )


@pytest.fixture
def tiny_joint() -> JointStage:
    """A few steps of stage 2 on whole small images."""
    return JointStage(
        iterations=4,
        batch_size=2,
        copy_size=48,
        optimizer="adamw",
        learning_rate=1e-3,
        top_learning_rate=1e-3,
        crf_learning_rate=0.05,
        measured_train=2,
        validate_every=2,
        checkpoint_every=1,
    )


@pytest.fixture
def tiny_config(tiny_unary: UnaryStage, tiny_joint: JointStage) -> TrainConfig:
    """Both tiny stages from random weights."""
    network = NetworkConfig(
        width=0.06, head="smallfov", batch_norm=True, dropout=0.1, input_size=48
    )
    return replace(named_config("compact"), network=network, unary=tiny_unary, joint=tiny_joint)


@pytest.fixture
def tiny_network() -> UnaryNetwork:
    """A narrow network with fixed weights."""
    torch.manual_seed(3)
    backbone = VGG16(21, width=0.06, head="smallfov", batch_norm=True, dropout=0.1)
    return UnaryNetwork(backbone, input_size=48)


@pytest.fixture
def tiny_model(tiny_network: UnaryNetwork) -> DeepCRF:
    """The narrow network with a weak CRF behind it."""
    weak = CRFParameters(w_spatial=0.5, theta_gamma=2, w_bilateral=1, theta_alpha=10)
    return DeepCRF(tiny_network, DenseCRF(weak), VOC_CLASSES)
