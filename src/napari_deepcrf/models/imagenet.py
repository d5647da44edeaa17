"""Starting VGG16 from torchvision's ImageNet weights [paper, section 4.1; its reference 3].

torchvision's fully connected layers become convolutions: fc6 (4096 × 25088) is a 7 × 7 kernel
over 512 channels, fc7 (4096 × 4096) a 1 × 1 one. The 4 × 4 and 3 × 3 heads take evenly spaced
taps of the 7 × 7 kernel, and the 3 × 3 ones every fourth of the 4096 channels, so that there are
1024 as in LargeFOV (the paper's reference 3).
"""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path

import torch
from torch import Tensor

from napari_deepcrf.download import fetch
from napari_deepcrf.messages import first_line
from napari_deepcrf.models.vgg16 import HEADS, VGG16

IMAGENET_URL = "https://download.pytorch.org/models/vgg16-397923af.pth"
IMAGENET_SHA256 = "397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0"

# torchvision's `features.N` of each convolution.
_FEATURES = {
    "conv1_1": 0, "conv1_2": 2,
    "conv2_1": 5, "conv2_2": 7,
    "conv3_1": 10, "conv3_2": 12, "conv3_3": 14,
    "conv4_1": 17, "conv4_2": 19, "conv4_3": 21,
    "conv5_1": 24, "conv5_2": 26, "conv5_3": 28,
}  # fmt: skip


def load_imagenet(backbone: VGG16, path: Path | str | None = None) -> None:
    """Put the ImageNet weights into every layer but the top one.

    Parameters
    ----------
    backbone
        A VGG16 of full width without batch norm.
    path
        A local copy of torchvision's ``vgg16-397923af.pth``; by default it is downloaded once
        into the user's cache (528 MB), its hash checked.

    Raises
    ------
    ValueError
        If the network is thin or has batch norm, or the file holds other tensors.
    FileNotFoundError
        If there is no such file.
    OSError
        If the download fails.
    """
    if backbone.width != 1.0 or backbone.batch_norm:
        raise ValueError(
            "backbone: expected full width without batch norm, got width "
            f"{backbone.width}{' with batch norm' if backbone.batch_norm else ''}"
        )
    if path is None:
        path = fetch(IMAGENET_URL, digest=f"sha256:{IMAGENET_SHA256}")
    weights = _read(Path(path))
    for layer, source in _sources().items():
        for kind in ("weight", "bias"):
            name = f"{source}.{kind}"
            if not isinstance(weights.get(name), Tensor):
                raise ValueError(f"{path}: expected torchvision's VGG16, found no {name}")
            target = backbone.get_parameter(f"features.{layer}.conv.{kind}")
            try:
                value = convert(layer, kind, weights[name], backbone.head)
                fits = value.shape == target.shape
            except (IndexError, RuntimeError):  # a matrix that is none, or of impossible size
                fits = False
            if not fits:
                raise ValueError(
                    f"{path}: {name}: expected what makes shape {tuple(target.shape)}, got shape "
                    f"{tuple(weights[name].shape)}"
                )
            with torch.no_grad():
                target.copy_(value)


def convert(layer: str, kind: str, value: Tensor, head: str) -> Tensor:
    """A torchvision tensor as the convolution ``layer`` of a VGG16 with this head needs it.

    ``kind`` is ``"weight"`` (outputs, inputs) or ``"bias"`` (outputs,).
    """
    if layer not in ("fc6", "fc7"):
        return value
    outputs = HEADS[head].channels
    step = value.shape[0] // outputs  # 1, or 4 for the 3 × 3 heads' 1024 of 4096 channels
    value = value[::step] if step > 1 else value
    if kind == "bias":
        return value
    if layer == "fc7":
        return value[:, ::step, None, None] if step > 1 else value[:, :, None, None]
    side = round((value.shape[1] / 512) ** 0.5)
    kernel = value.reshape(value.shape[0], -1, side, side)
    taps = torch.linspace(0, side - 1, HEADS[head].kernel).round().long()
    return kernel[:, :, taps][:, :, :, taps]


def _sources() -> dict[str, str]:
    layers = {name: f"features.{index}" for name, index in _FEATURES.items()}
    return {**layers, "fc6": "classifier.0", "fc7": "classifier.3"}


def _read(path: Path) -> dict[str, Tensor]:
    """The published file is a pickle; ``weights_only`` refuses everything but tensors.

    It is in PyTorch's format from before 1.6, which only newer files' zip archives let be mapped.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        mmap = zipfile.is_zipfile(path)
        weights = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except (RuntimeError, pickle.UnpicklingError, EOFError, ValueError) as error:
        reason = first_line(error)[:120]
        raise ValueError(f"{path}: not a whole file of tensors ({reason})") from error
    if not isinstance(weights, dict):
        raise ValueError(f"{path}: expected torchvision's VGG16, got {type(weights).__name__}")
    return weights
