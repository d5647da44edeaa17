"""What every score network has in common: hidden layers below a replaceable top layer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import OrderedDict
from copy import deepcopy
from typing import Self, TypeVar

from torch import Tensor, nn


class Backbone(nn.Module, ABC):
    """(B, 3, H, W) normalised RGB images → (B, L, h, w) scores, h about H / 8 or H / 16.

    ``features`` are the hidden layers, `ConvBlock` by `ConvBlock`; ``score`` is the top layer,
    a 1 × 1 convolution to L classes that is replaced for new classes [paper, section 4.1].
    """

    features: nn.Sequential
    score: nn.Conv2d
    num_classes: int
    batch_norm: bool
    frozen_layers: int = 0
    """How many of the first layers do not learn; see `freeze`."""
    taps: tuple[str, ...]
    """Layers of ``features``, one for each kind of map, whose outputs `feature_maps` gives."""

    @abstractmethod
    def configuration(self) -> dict[str, object]:
        """The constructor's arguments, for a checkpoint."""

    def with_changes(self, **changes: object) -> Self:
        """A network of the same kind with fresh weights and some arguments changed."""
        return type(self)(**{**self.configuration(), **changes})

    def top_parameters(self) -> list[nn.Parameter]:
        """The parameters of the replaced top layer, which learns faster [paper, section 4.1]."""
        return list(self.score.parameters())

    def body_parameters(self) -> list[nn.Parameter]:
        """All parameters below the top layer that learn."""
        return [value for value in self.features.parameters() if value.requires_grad]

    def freeze(self, layers: int) -> None:
        """Let the first layers of ``features`` keep their weights and statistics in training.

        Training is the faster for it: no gradient flows through the largest maps.
        """
        self.frozen_layers = layers
        for layer in list(self.features)[:layers]:
            layer.requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """As `torch.nn.Module.train`, but for frozen layers, which stay in evaluation mode."""
        super().train(mode)
        for layer in list(self.features)[: self.frozen_layers]:
            layer.eval()
        return self

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) normalised images → (B, L, h, w) scores."""
        scores: Tensor = self.score(self.features(x))
        return scores

    def feature_maps(self, x: Tensor) -> list[Tensor]:
        """(B, 3, H, W) normalised images → hidden maps (B, C_i, h_i, w_i), from fine to coarse."""
        maps = []
        for name, layer in self.features.named_children():
            x = layer(x)
            if name in self.taps:
                maps.append(x)
        return maps

    def reset_parameters(self) -> None:
        """Random start: He's initialisation for the hidden layers, a small one for the top."""
        if self.score.weight.is_meta:
            return  # a network of sizes alone
        for module in self.features.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        nn.init.normal_(self.score.weight, std=0.01)
        assert self.score.bias is not None
        nn.init.zeros_(self.score.bias)


AnyBackbone = TypeVar("AnyBackbone", bound=Backbone)


class ConvBlock(nn.Sequential):
    """A convolution padded to keep the size, perhaps normalised, perhaps activated.

    Parameters
    ----------
    inputs, outputs
        Channels.
    kernel, stride, dilation, groups
        As `torch.nn.Conv2d` takes them.
    batch_norm
        Normalise behind the convolution, which then has no bias.
    activation
        The activation's class; ``None`` leaves the block linear.
    """

    conv: nn.Conv2d

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        *,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        batch_norm: bool,
        activation: type[nn.ReLU] | type[nn.ReLU6] | None = nn.ReLU,
    ) -> None:
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        layers["conv"] = nn.Conv2d(
            inputs,
            outputs,
            kernel,
            stride=stride,
            padding=dilation * (kernel - 1) // 2,
            dilation=dilation,
            groups=groups,
            bias=not batch_norm,
        )
        if batch_norm:
            layers["norm"] = nn.BatchNorm2d(outputs)
        if activation is not None:
            layers["relu"] = activation(inplace=True)
        super().__init__(layers)


def fold_batch_norm(backbone: AnyBackbone) -> AnyBackbone:
    """A copy without batch norm that computes what ``backbone`` does in evaluation mode.

    Joint fine-tuning sees one image at a time, whose own statistics would be no guide.

    Raises
    ------
    ValueError
        If there is no batch norm.
    """
    if not backbone.batch_norm:
        raise ValueError("backbone: expected one with batch norm, got one without")
    plain = backbone.with_changes(batch_norm=False)
    for name, block in backbone.named_modules():
        if isinstance(block, ConvBlock):
            norm = block.get_submodule("norm")
            assert isinstance(norm, nn.BatchNorm2d)
            folded = nn.utils.fusion.fuse_conv_bn_eval(
                deepcopy(block.conv).eval(), deepcopy(norm).eval()
            )
            plain.get_submodule(f"{name}.conv").load_state_dict(folded.state_dict())
    plain.score.load_state_dict(backbone.score.state_dict())
    return plain.to(next(backbone.parameters()).device).train(backbone.training)
