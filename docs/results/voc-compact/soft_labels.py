"""Write the teacher's soft labels of VOC's train_aug: CONSTANTS.npz VOCDEVKIT OUT.npz.

The teacher is DeepLabv3 with MobileNetV2 (TensorFlow model zoo, Apache-2.0), trained by its authors
on ImageNet, COCO and PASCAL VOC. CONSTANTS.npz holds its layers as TFLite stores them, batch norm
folded: convolutions OHWI, depthwise ones 1HWC. Five minutes on two CPU cores.
"""

import re
import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from napari_deepcrf.data.image_files import read_rgb
from napari_deepcrf.data.voc import VOCDataset

# Inverted residual blocks that halve the resolution; the last three are dilated instead.
STRIDES = {1: 2, 3: 2, 6: 2}
DILATED_FROM = 14
BLOCKS = 17
INPUT_SIDE = 321


def load_layers(path: str) -> dict[str, tuple[Tensor, Tensor]]:
    """Weights (O, I, kH, kW) and biases by short names: stem, 3.expand, 3.depthwise, aspp0 …"""
    stored = np.load(path)
    layers: dict[str, tuple[Tensor, Tensor]] = {}
    weight_of = ""
    for key in stored.files:
        value = torch.from_numpy(stored[key].astype(np.float32))
        if value.ndim == 4:
            weight_of = key
            continue
        if value.ndim != 1 or not weight_of:
            continue
        weight = torch.from_numpy(stored[weight_of].astype(np.float32))
        order = (3, 0, 1, 2) if "depthwise" in weight_of else (0, 3, 1, 2)
        layers[_short_name(weight_of)] = (weight.permute(order).contiguous(), value)
        weight_of = ""
    return layers


def _short_name(key: str) -> str:
    block = re.match(r"MobilenetV2/expanded_conv(?:_(\d+))?/(expand|depthwise|project)", key)
    if block:
        return f"{int(block[1] or 0)}.{block[2]}"
    return "stem" if key.startswith("MobilenetV2/Conv/") else key.split("/")[0]


class Teacher:
    """(1, 3, H, W) RGB in 0–255 → (1, 21, ⌈H/16⌉, ⌈W/16⌉) logits, TensorFlow's padding."""

    def __init__(self, path: str) -> None:
        self.layers = load_layers(path)

    def __call__(self, image: Tensor) -> Tensor:
        x = self._layer(image / 127.5 - 1, "stem", stride=2)
        for block in range(BLOCKS):
            x = self._block(x, block)
        local = self._layer(x, "aspp0")
        whole = self._layer(x.mean((2, 3), keepdim=True), "image_pooling")
        x = torch.cat([whole.expand(-1, -1, *x.shape[2:]), local], 1)
        return self._layer(self._layer(x, "concat_projection"), "logits", activate=False)

    def _block(self, x: Tensor, block: int) -> Tensor:
        stride = STRIDES.get(block, 1)
        dilation = 2 if block >= DILATED_FROM else 1
        y = self._layer(x, f"{block}.expand") if block else x
        y = self._layer(y, f"{block}.depthwise", stride=stride, dilation=dilation)
        y = self._layer(y, f"{block}.project", activate=False)
        return x + y if x.shape == y.shape else y

    def _layer(
        self, x: Tensor, name: str, *, stride: int = 1, dilation: int = 1, activate: bool = True
    ) -> Tensor:
        weight, bias = self.layers[name]
        reach = dilation * (weight.shape[2] - 1) + 1
        padding: list[int] = []
        for extent in (x.shape[3], x.shape[2]):
            total = max((-(-extent // stride) - 1) * stride + reach - extent, 0)
            padding += [total // 2, total - total // 2]
        groups = weight.shape[0] if name.endswith("depthwise") else 1
        y = F.conv2d(
            F.pad(x, padding), weight, bias, stride=stride, dilation=dilation, groups=groups
        )
        return y.clamp_(0, 6) if activate else y


@torch.inference_mode()
def soft_labels(teacher: Teacher, path: Path) -> np.ndarray:
    """(21, h, w) float16 probabilities at an eighth of the teacher's input."""
    photo = Image.fromarray(read_rgb(path))
    factor = INPUT_SIDE / max(photo.size)
    width, height = (max(1, round(side * factor / 16)) * 16 + 1 for side in photo.size)
    small = np.asarray(photo.resize((width, height), Image.Resampling.BILINEAR))
    logits = teacher(torch.from_numpy(small.copy()).permute(2, 0, 1)[None].float())
    logits = F.interpolate(logits, (height, width), mode="bilinear", align_corners=True)
    reduced = F.interpolate(logits.softmax(1), (height // 8, width // 8), mode="area")
    return reduced[0].half().numpy()


def main(constants: str, devkit: str, out: str) -> None:
    """Write one array per image of train_aug."""
    teacher = Teacher(constants)
    dataset = VOCDataset(devkit, "train_aug")
    folder = dataset.root / "JPEGImages"
    labels = {name: soft_labels(teacher, folder / f"{name}.jpg") for name in dataset.names}
    np.savez(out, **labels)


if __name__ == "__main__":
    main(*sys.argv[1:])
