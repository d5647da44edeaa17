"""MobileNetV2 as a dense score network (Sandler et al. 2018), made dense as the paper does VGG16.

The separable, thin counterpart of `VGG16` for CPUs: the same five stages, the last two of which
keep their resolution while their convolutions are dilated [paper, section 4.1], 3 × 3 convolutions
replaced by inverted residual blocks.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

from napari_deepcrf.models.backbone import Backbone, ConvBlock

# (output channels, blocks, stride, expansion) of the groups of blocks behind the stem, as
# published: 1/32 of the resolution in the end.
_GROUPS = (
    (16, 1, 1, 1),
    (24, 2, 2, 6),
    (32, 3, 2, 6),
    (64, 4, 2, 6),
    (96, 3, 1, 6),
    (160, 3, 2, 6),
    (320, 1, 1, 6),
)
_STEM = 32
_HIDDEN = 256
_FC6_REACH = 48
"""Pixels between the taps of fc6's kernel."""


class InvertedResidual(nn.Module):
    """Widen, filter every channel by its own 3 × 3 kernel, narrow; added to its input if it fits.

    (B, inputs, H, W) → (B, outputs, ⌈H / stride⌉, ⌈W / stride⌉).
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        stride: int,
        dilation: int,
        expansion: int,
        batch_norm: bool,
    ) -> None:
        super().__init__()
        wide = inputs * expansion
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        if expansion > 1:
            layers["expand"] = ConvBlock(
                inputs, wide, 1, batch_norm=batch_norm, activation=nn.ReLU6
            )
        layers["depthwise"] = ConvBlock(
            wide,
            wide,
            3,
            stride=stride,
            dilation=dilation,
            groups=wide,
            batch_norm=batch_norm,
            activation=nn.ReLU6,
        )
        layers["project"] = ConvBlock(wide, outputs, 1, batch_norm=batch_norm, activation=None)
        self.layers = nn.Sequential(layers)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) → (B, outputs, h, w)."""
        y: Tensor = self.layers(x)
        return x + y if self.residual else y


class MobileNetV2(Backbone):
    """The dilated MobileNetV2: (B, 3, H, W) → (B, L, ⌈H/s⌉, ⌈W/s⌉) scores.

    Parameters
    ----------
    num_classes
        L, the number of score maps.
    output_stride
        s, 8 or 16: strides that would reduce further become dilations. The weights are the same
        for both, so that 16, at a quarter of the work, can do most of the training.
    batch_norm
        Normalise after every convolution, to train. `fold_batch_norm` merges the statistics into
        the convolutions for use and for joint fine-tuning.
    dropout
        Probability of zeroing a channel before the top layer in training.

    Input is RGB, normalised as torchvision does (`UnaryNetwork` takes 0–255 images).

    Raises
    ------
    ValueError
        For fewer than 2 classes, or another output stride.
    """

    taps = ("block0", "block2", "block5", "block9", "block12", "block15", "block16", "fc7")

    def __init__(
        self,
        num_classes: int,
        *,
        output_stride: int = 8,
        batch_norm: bool = False,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        if num_classes < 2:
            raise ValueError(f"num_classes: expected at least 2, got {num_classes}")
        if output_stride not in (8, 16):
            raise ValueError(f"output_stride: expected 8 or 16, got {output_stride}")
        self.num_classes = num_classes
        self.output_stride = output_stride
        self.batch_norm = batch_norm
        self.dropout = dropout
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        layers["stem"] = ConvBlock(
            3, _STEM, 3, stride=2, batch_norm=batch_norm, activation=nn.ReLU6
        )
        inputs, reduction, dilation = _STEM, 2, 1
        blocks = 0
        for outputs, depth, group_stride, expansion in _GROUPS:
            reduces = reduction * group_stride <= output_stride
            for index in range(depth):
                layers[f"block{blocks}"] = InvertedResidual(
                    inputs,
                    outputs,
                    stride=group_stride if reduces and index == 0 else 1,
                    dilation=dilation,
                    expansion=expansion,
                    batch_norm=batch_norm,
                )
                inputs, blocks = outputs, blocks + 1
                if index == 0 and not reduces:  # only later blocks would have seen the coarse grid
                    dilation *= group_stride
            reduction *= group_stride if reduces else 1
        layers["fc6_depthwise"] = ConvBlock(
            inputs,
            inputs,
            3,
            dilation=_FC6_REACH // output_stride,
            groups=inputs,
            batch_norm=batch_norm,
            activation=nn.ReLU6,
        )
        layers["fc6"] = ConvBlock(inputs, _HIDDEN, 1, batch_norm=batch_norm)
        layers["fc7"] = ConvBlock(_HIDDEN, _HIDDEN, 1, batch_norm=batch_norm)
        layers["drop7"] = nn.Dropout2d(dropout)
        self.features = nn.Sequential(layers)
        self.score = nn.Conv2d(_HIDDEN, num_classes, 1)
        self.reset_parameters()

    def configuration(self) -> dict[str, object]:
        """The constructor's arguments, for a checkpoint."""
        return {
            "num_classes": self.num_classes,
            "output_stride": self.output_stride,
            "batch_norm": self.batch_norm,
            "dropout": self.dropout,
        }
