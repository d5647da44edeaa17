"""VGG16 as a dense score network (Simonyan & Zisserman 2015; section 4.1 of the paper).

The two fully connected layers become convolutions, the last two poolings keep their resolution
and the convolutions after them are dilated instead, so that a 306 × 306 image gives a 40 × 40
score map.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# (output channels, convolutions, dilation) of the five stages, and each stage's pooling stride.
_STAGES = ((64, 2, 1), (128, 2, 1), (256, 3, 1), (512, 3, 1), (512, 3, 2))
_POOL_STRIDES = (2, 2, 2, 1, 1)

# torchvision's ImageNet statistics on the 0–255 scale.
_RGB_MEAN = (123.675, 116.28, 103.53)
_RGB_STD = (58.395, 57.12, 57.375)


@dataclass(frozen=True)
class Head:
    """The convolution that stands for fc6: kernel size, dilation, channels at full width."""

    kernel: int
    dilation: int
    channels: int

    @property
    def padding(self) -> int:
        """Zeros on each side that keep the size of the score map."""
        return self.dilation * (self.kernel - 1) // 2


HEADS = {
    "7x7": Head(kernel=7, dilation=4, channels=4096),
    "4x4": Head(kernel=4, dilation=4, channels=4096),
    "largefov": Head(kernel=3, dilation=12, channels=1024),
    # LargeFOV for score maps of some 20 × 30 cells, where a dilation of 12 sees mostly padding.
    "smallfov": Head(kernel=3, dilation=6, channels=1024),
}


def _convolution(
    inputs: int, outputs: int, kernel: int, *, padding: int, dilation: int, batch_norm: bool
) -> nn.Sequential:
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    layers["conv"] = nn.Conv2d(
        inputs, outputs, kernel, padding=padding, dilation=dilation, bias=not batch_norm
    )
    if batch_norm:
        layers["norm"] = nn.BatchNorm2d(outputs)
    layers["relu"] = nn.ReLU(inplace=True)
    return nn.Sequential(layers)


class VGG16(nn.Module):
    """The dilated, fully convolutional VGG16: (B, 3, H, W) → (B, L, ⌈≈H/8⌉, ⌈≈W/8⌉) scores.

    Parameters
    ----------
    num_classes
        L, the number of score maps.
    width
        Every hidden layer has ``width`` times the original's channels; 1.0 is VGG16 itself.
    head
        What fc6 becomes: ``"7x7"`` dilation 4 (all ImageNet weights), ``"4x4"`` dilation 4
        (weights subsampled), ``"largefov"`` (3 × 3, dilation 12) or ``"smallfov"`` (3 × 3,
        dilation 6, for inputs of some 200 pixels).
    batch_norm
        Normalise after every convolution, to train from random weights. `fold_batch_norm`
        merges the statistics into the convolutions for use and for joint fine-tuning.
    dropout
        Probability of zeroing a channel after fc6 and fc7 in training.

    Input is RGB, normalised as torchvision does (`UnaryNetwork` takes 0–255 images).
    """

    def __init__(
        self,
        num_classes: int,
        *,
        width: float = 1.0,
        head: str = "7x7",
        batch_norm: bool = False,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        if num_classes < 2:
            raise ValueError(f"num_classes: expected at least 2, got {num_classes}")
        if not 0 < width <= 1:
            raise ValueError(f"width: expected a number in (0, 1], got {width}")
        if head not in HEADS:
            raise ValueError(f"head: expected one of {', '.join(HEADS)}, got {head!r}")
        self.num_classes = num_classes
        self.width = width
        self.head = head
        self.batch_norm = batch_norm
        self.dropout = dropout

        def thin(channels: int) -> int:
            return max(4, round(channels * width))

        layers: OrderedDict[str, nn.Module] = OrderedDict()
        inputs = 3
        for stage, ((channels, depth, dilation), stride) in enumerate(
            zip(_STAGES, _POOL_STRIDES, strict=True), start=1
        ):
            for index in range(1, depth + 1):
                layers[f"conv{stage}_{index}"] = _convolution(
                    inputs,
                    thin(channels),
                    3,
                    padding=dilation,
                    dilation=dilation,
                    batch_norm=batch_norm,
                )
                inputs = thin(channels)
            layers[f"pool{stage}"] = nn.MaxPool2d(3, stride=stride, padding=1, ceil_mode=stride > 1)
        fc6 = HEADS[head]
        hidden = thin(fc6.channels)
        layers["fc6"] = _convolution(
            inputs,
            hidden,
            fc6.kernel,
            padding=fc6.padding,
            dilation=fc6.dilation,
            batch_norm=batch_norm,
        )
        layers["drop6"] = nn.Dropout2d(dropout)
        layers["fc7"] = _convolution(
            hidden, hidden, 1, padding=0, dilation=1, batch_norm=batch_norm
        )
        layers["drop7"] = nn.Dropout2d(dropout)
        self.features = nn.Sequential(layers)
        self.score = nn.Conv2d(hidden, num_classes, 1)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Random start: He's initialisation for the hidden layers, a small one for the top."""
        for module in self.features.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        nn.init.normal_(self.score.weight, std=0.01)
        assert self.score.bias is not None
        nn.init.zeros_(self.score.bias)

    def configuration(self) -> dict[str, object]:
        """The constructor's arguments, for a checkpoint."""
        return {
            "num_classes": self.num_classes,
            "width": self.width,
            "head": self.head,
            "batch_norm": self.batch_norm,
            "dropout": self.dropout,
        }

    def top_parameters(self) -> list[nn.Parameter]:
        """The parameters of the replaced top layer, which learns faster (section 4.1)."""
        return list(self.score.parameters())

    def body_parameters(self) -> list[nn.Parameter]:
        """All parameters below the top layer."""
        return list(self.features.parameters())

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) normalised images → (B, L, h, w) scores."""
        scores: Tensor = self.score(self.features(x))
        return scores


class UnaryNetwork(nn.Module):
    """VGG16 from 0–255 images to per-pixel scores at the image's own resolution (section 4.1).

    The image is reduced so that its longer side has ``input_size`` pixels, scored, and the
    score map is enlarged bilinearly to the original H × W, all inside the network, so that a
    loss at the original resolution back-propagates through it.

    ``scales`` are multiples of ``input_size``; with more than one, the mean of the enlarged score
    maps is the score, which is steadier over the sizes of objects.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, backbone: VGG16, *, input_size: int = 306, scales: Sequence[float] = (1.0,)
    ) -> None:
        super().__init__()
        if input_size < 8:
            raise ValueError(f"input_size: expected at least 8 pixels, got {input_size}")
        if not scales or min(scales) <= 0:
            raise ValueError(f"scales: expected positive numbers, got {tuple(scales)}")
        self.backbone = backbone
        self.input_size = input_size
        self.scales = tuple(scales)
        self.register_buffer("mean", torch.tensor(_RGB_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(_RGB_STD).view(1, 3, 1, 1), persistent=False)

    def coarse(self, image: Tensor) -> Tensor:
        """(B, 3, h, w) images in 0–255 at the network's own scale → (B, L, ≈h/8, ≈w/8) scores."""
        scores: Tensor = self.backbone((image - self.mean) / self.std)
        return scores

    def network_size(self, height: int, width: int, scale: float = 1.0) -> tuple[int, int]:
        """Height and width to which an H × W image is reduced (or enlarged) for the network."""
        factor = scale * self.input_size / max(height, width)
        return max(8, round(height * factor)), max(8, round(width * factor))

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) images in 0–255 → (B, L, H, W) scores."""
        height, width = image.shape[-2:]
        total = torch.zeros((), device=image.device)
        for scale in self.scales:
            small = F.interpolate(
                image,
                size=self.network_size(height, width, scale),
                mode="bilinear",
                align_corners=False,
                antialias=True,
            )
            scores = self.coarse(small).to(image.dtype)  # half precision, if any, ends here
            total = total + F.interpolate(
                scores, size=(height, width), mode="bilinear", align_corners=False
            )
        return total / len(self.scales)


def fold_batch_norm(network: UnaryNetwork) -> UnaryNetwork:
    """A copy without batch norm that computes what ``network`` does in evaluation mode.

    Joint fine-tuning sees one image at a time, whose own statistics would be no guide.
    """
    backbone = network.backbone
    if not backbone.batch_norm:
        raise ValueError("network: expected one with batch norm, got one without")
    plain = VGG16(**{**backbone.configuration(), "batch_norm": False})  # type: ignore[arg-type]
    for name, block in backbone.features.named_children():
        if not isinstance(block, nn.Sequential):
            continue
        convolution, norm = block.get_submodule("conv"), block.get_submodule("norm")
        assert isinstance(convolution, nn.Conv2d)
        assert isinstance(norm, nn.BatchNorm2d)
        folded = nn.utils.fusion.fuse_conv_bn_eval(
            deepcopy(convolution).eval(), deepcopy(norm).eval()
        )
        plain.get_submodule(f"features.{name}.conv").load_state_dict(folded.state_dict())
    plain.score.load_state_dict(backbone.score.state_dict())
    result = UnaryNetwork(plain, input_size=network.input_size, scales=network.scales)
    return result.to(next(network.parameters()).device).train(network.training)
