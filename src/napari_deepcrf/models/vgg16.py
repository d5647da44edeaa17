"""VGG16 as a dense score network (Simonyan & Zisserman 2015) [paper, section 4.1].

The two fully connected layers become convolutions, the last two poolings keep their resolution
and the convolutions after them are dilated instead, so that a 306 × 306 image gives a 40 × 40
score map.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from torch import nn

from napari_deepcrf.models.backbone import Backbone, ConvBlock

# (output channels, convolutions, dilation) of the five stages, and each stage's pooling stride.
_STAGES = ((64, 2, 1), (128, 2, 1), (256, 3, 1), (512, 3, 1), (512, 3, 2))
_POOL_STRIDES = (2, 2, 2, 1, 1)


@dataclass(frozen=True)
class Head:
    """The convolution that stands for fc6: kernel size, dilation, channels at full width."""

    kernel: int
    dilation: int
    channels: int


HEADS = {
    "7x7": Head(kernel=7, dilation=4, channels=4096),
    "4x4": Head(kernel=4, dilation=4, channels=4096),
    "largefov": Head(kernel=3, dilation=12, channels=1024),
    # LargeFOV for score maps of some 20 × 30 cells, where a dilation of 12 sees mostly padding.
    "smallfov": Head(kernel=3, dilation=6, channels=1024),
}


class VGG16(Backbone):
    """The dilated, fully convolutional VGG16: (B, 3, H, W) → (B, L, h, w) scores, h about H / 8.

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

    Raises
    ------
    ValueError
        For fewer than 2 classes, a width outside (0, 1], or an unknown head.
    """

    taps = ("conv1_2", "conv2_2", "conv3_3", "conv4_3", "conv5_3", "fc7")

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
                layers[f"conv{stage}_{index}"] = ConvBlock(
                    inputs, thin(channels), 3, dilation=dilation, batch_norm=batch_norm
                )
                inputs = thin(channels)
            layers[f"pool{stage}"] = nn.MaxPool2d(3, stride=stride, padding=1, ceil_mode=stride > 1)
        fc6 = HEADS[head]
        hidden = thin(fc6.channels)
        layers["fc6"] = ConvBlock(
            inputs, hidden, fc6.kernel, dilation=fc6.dilation, batch_norm=batch_norm
        )
        layers["drop6"] = nn.Dropout2d(dropout)
        layers["fc7"] = ConvBlock(hidden, hidden, 1, batch_norm=batch_norm)
        layers["drop7"] = nn.Dropout2d(dropout)
        self.features = nn.Sequential(layers)
        self.score = nn.Conv2d(hidden, num_classes, 1)
        self.reset_parameters()

    def configuration(self) -> dict[str, object]:
        """The constructor's arguments, for a checkpoint."""
        return {
            "num_classes": self.num_classes,
            "width": self.width,
            "head": self.head,
            "batch_norm": self.batch_norm,
            "dropout": self.dropout,
        }
