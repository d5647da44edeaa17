"""A top layer on maps of every stride, for classes that a few scribbles teach.

The score map of stride 8 alone blurs small and thin objects. Here the network's hidden maps of
several strides (hypercolumns, Hariharan et al. 2015) and the image's own colour and texture each
add their share to the scores, at their own resolution, and only these scores are enlarged: fine
detail at the cost of a few small convolutions. The shares are sums over single features, each seen
through soft thresholds (a generalised additive model, Hastie & Tibshirani 1986), which is what a
thousand labelled pixels of a few strokes can determine.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_deepcrf.models.backbone import Backbone
from napari_deepcrf.models.texture import texture_maps
from napari_deepcrf.models.unary import UnaryNetwork

COMPONENTS = 16
"""Most features that a map is reduced to."""
_THRESHOLDS = (-1.0, 0.0, 1.0)
"""In standard deviations of a feature about the middle of the classes."""
_STEEPNESS = 2.0
_REACH = 2.5
"""Standard deviations beyond which a feature says no more: unseen things get no wild scores."""
RESPONSES = 1 + len(_THRESHOLDS)
"""Numbers that stand for one feature: itself, and whether it exceeds each threshold."""

SMALLEST_VIEW, LARGEST_VIEW = 512, 1024
"""The longer side of what the network sees of an image. In between, images keep their size; below
they are enlarged, so that their small objects reach the strided maps; above they are reduced."""


class MapScores(nn.Module):
    """One map's share: (B, C, h, w) → (B, L, h, w).

    The C channels become K features by a fixed affine map, set from data (`calibrate`,
    `standardise`); the weights of their responses are learnt.
    """

    projection: Tensor
    offset: Tensor

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        features = min(channels, COMPONENTS)
        self.register_buffer("projection", torch.eye(features, channels))
        self.register_buffer("offset", torch.zeros(features))
        self.weight = nn.Parameter(torch.zeros(num_classes, features * RESPONSES))

    @torch.no_grad()
    def calibrate(self, maps: Sequence[Tensor]) -> None:
        """Features: the principal components of maps (1, C, h, w), each of unit variance."""
        pixels = torch.cat([one[0].flatten(1) for one in maps], 1)
        # The coarsest map of the smallest image is a single pixel.
        spread, mean = torch.std_mean(pixels, dim=1, correction=min(1, pixels.shape[1] - 1))
        spread = spread.clamp_min(1e-4 * float(spread.max()) + 1e-12)
        centred = (pixels - mean[:, None]) / spread[:, None]
        values, vectors = torch.linalg.eigh(centred @ centred.T / centred.shape[1])
        count = len(self.offset)
        vectors, values = vectors[:, -count:].flip(1), values[-count:].flip(0)
        # Which of the two directions is positive must not depend on the linear algebra library.
        vectors = vectors * vectors.gather(0, vectors.abs().argmax(0)[None]).sign()
        self.projection.copy_((vectors / values.clamp_min(1e-3).sqrt()).T / spread)
        self.offset.copy_(-(self.projection @ mean))

    @torch.no_grad()
    def standardise(self, middle: Tensor, spread: Tensor) -> None:
        """Let every feature's ``middle`` (K,) become 0 and its ``spread`` (K,) become 1."""
        self.projection.div_(spread[:, None])
        self.offset.sub_(middle).div_(spread)

    def features(self, x: Tensor) -> Tensor:
        """(B, C, h, w) → (B, K, h, w)."""
        return F.conv2d(x, self.projection[:, :, None, None], self.offset)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) → (B, L, h, w)."""
        return F.conv2d(responses(self.features(x)), self.weight[:, :, None, None])


def responses(features: Tensor) -> Tensor:
    """(B, K, …) features → (B, K · `RESPONSES`, …): bounded, and about linear in between."""
    steps = [torch.tanh(_STEEPNESS * (features - t)) for t in _THRESHOLDS]
    return torch.cat([features.clamp(-_REACH, _REACH), *steps], 1)


class FineHead(nn.Module):
    """The sum of the scores of several maps, enlarged to the image's size.

    Parameters
    ----------
    channels
        Of each map.
    num_classes
        L.
    """

    def __init__(self, channels: Sequence[int], num_classes: int) -> None:
        super().__init__()
        self.shares = nn.ModuleList(MapScores(count, num_classes) for count in channels)
        self.bias = nn.Parameter(torch.zeros(num_classes))

    def for_classes(self, num_classes: int) -> FineHead:
        """A copy with the same features, for other classes, without weights."""
        copy = FineHead([share.projection.shape[1] for share in self._shares], num_classes)
        for mine, its in zip(self._shares, copy._shares, strict=True):
            its.projection.copy_(mine.projection)
            its.offset.copy_(mine.offset)
        return copy.to(self.bias.device)

    @property
    def _shares(self) -> list[MapScores]:
        return cast("list[MapScores]", list(self.shares))

    def calibrate(self, images: Sequence[Sequence[Tensor]]) -> None:
        """Set the features from the maps of one or more images."""
        for share, maps in zip(self._shares, zip(*images, strict=True), strict=True):
            share.calibrate(maps)

    def forward(self, maps: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        """Maps (B, C_i, h_i, w_i) of H × W images → (B, L, H, W) scores."""
        total = self.bias[:, None, None]
        for share, one in zip(self._shares, maps, strict=True):
            scores = share(one)
            if scores.shape[2:] != size:
                scores = F.interpolate(scores, size, mode="bilinear", align_corners=False)
            total = total + scores
        return total


class FineUnaryNetwork(UnaryNetwork):
    """A backbone with a `FineHead` in place of its top layer.

    The network sees images nearly at their native scale, and once more reduced as it was trained,
    for what is around; see `SMALLEST_VIEW`.
    """

    def __init__(self, backbone: Backbone, *, input_size: int | None = 306) -> None:
        super().__init__(backbone, input_size=input_size)
        device = next(backbone.parameters()).device
        with torch.no_grad():
            maps = self.maps(torch.zeros(1, 3, 16, 16, device=device))
        self.fine = FineHead([one.shape[1] for one in maps], backbone.num_classes).to(device)

    def maps(self, image: Tensor) -> list[Tensor]:
        """(B, 3, H, W) images in 0–255 → what the head sees, maps (B, C_i, h_i, w_i)."""
        height, width = image.shape[-2:]
        longer = max(height, width)
        view = min(max(longer, SMALLEST_VIEW), LARGEST_VIEW) / longer
        near = self._hidden(image, (max(1, round(height * view)), max(1, round(width * view))))
        far = self._hidden(image, self.network_size(height, width))
        return [*texture_maps(image), *near, far[-1]]

    def coarse(self, image: Tensor) -> Tensor:
        """(B, 3, h, w) images in 0–255 → (B, L, ⌈h/8⌉, ⌈w/8⌉) scores, for very large images."""
        height, width = image.shape[-2:]
        scores = self(image)
        return F.interpolate(scores, (-(-height // 8), -(-width // 8)), mode="area")

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) images in 0–255 → (B, L, H, W) scores."""
        height, width = image.shape[-2:]
        scores: Tensor = self.fine(self.maps(image), (height, width))
        return scores.to(image.dtype)

    def _hidden(self, image: Tensor, size: tuple[int, int]) -> list[Tensor]:
        resized = F.interpolate(
            image, size=size, mode="bilinear", align_corners=False, antialias=True
        )
        return self.backbone.feature_maps((resized - self.mean) / self.std)
