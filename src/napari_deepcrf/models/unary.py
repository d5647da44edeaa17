"""The unary network: image in, per-pixel scores out at the image's own resolution."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_deepcrf.models.backbone import Backbone

# torchvision's ImageNet statistics on the 0–255 scale.
_RGB_MEAN = (123.675, 116.28, 103.53)
_RGB_STD = (58.395, 57.12, 57.375)

_MIN_SIDE = 8
"""Pixels of one cell of the score map."""


class UnaryNetwork(nn.Module):
    """A backbone from 0–255 images to scores of every pixel of the image [paper, section 4.1].

    The image is reduced so that its longer side has ``input_size`` pixels, scored, and the
    score map is enlarged bilinearly to the original H × W, all inside the network, so that a
    loss at the original resolution back-propagates through it. With ``input_size=None`` it sees
    images at their native scale, as a network trained on patches of large images does.

    ``scales`` are multiples of ``input_size``; with more than one, the mean of the enlarged score
    maps is the score, which is steadier over the sizes of objects.

    Raises
    ------
    ValueError
        For an ``input_size`` below 8 pixels, or scales that are none or not positive.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, backbone: Backbone, *, input_size: int | None = 306, scales: Sequence[float] = (1.0,)
    ) -> None:
        super().__init__()
        if input_size is not None and input_size < _MIN_SIDE:
            raise ValueError(f"input_size: expected at least {_MIN_SIDE} pixels, got {input_size}")
        if not scales or min(scales) <= 0:
            raise ValueError(f"scales: expected positive numbers, got {tuple(scales)}")
        self.backbone = backbone
        self.input_size = input_size
        self.scales = tuple(scales)
        self.register_buffer("mean", torch.tensor(_RGB_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(_RGB_STD).view(1, 3, 1, 1), persistent=False)

    def coarse(self, image: Tensor) -> Tensor:
        """(B, 3, h, w) images in 0–255 at the network's own scale → (B, L, ≈ h/8, ≈ w/8) scores."""
        scores: Tensor = self.backbone((image - self.mean) / self.std)
        return scores

    def reduction(self, longer_side: int) -> float:
        """The factor by which an image of this longer side is resized, at a scale of 1."""
        return 1.0 if self.input_size is None else self.input_size / longer_side

    def network_size(self, height: int, width: int, scale: float = 1.0) -> tuple[int, int]:
        """Height and width to which an H × W image is reduced (or enlarged) for the network."""
        factor = scale * self.reduction(max(height, width))
        return max(_MIN_SIDE, round(height * factor)), max(_MIN_SIDE, round(width * factor))

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
