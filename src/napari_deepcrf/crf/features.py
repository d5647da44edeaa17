"""From images to the coordinates that the Gaussian kernels compare."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class PixelGrid:
    """The pixels of a batch of B images of n pixels each, as N = B n points, image by image."""

    images: Tensor
    """(B, C, *S)."""

    @property
    def count(self) -> int:
        """B."""
        return self.images.shape[0]

    @property
    def channels(self) -> int:
        """C."""
        return self.images.shape[1]

    @property
    def shape(self) -> tuple[int, ...]:
        """S, slowest axis first."""
        return tuple(self.images.shape[2:])

    def coordinates(self, *, coloured: bool) -> Tensor:
        """(d, B, n): x, y, (z,) and, where ``coloured``, the channels; planes for vector code.

        The lattice does not treat all axes alike, so their order shows in the approximation. This
        one is that of Krähenbühl & Koltun's code, whose results it gives.
        """
        axes = len(self.shape)
        planes = self.images.new_empty(
            axes + (self.channels if coloured else 0), self.count, *self.shape
        )
        for axis, size in enumerate(self.shape):
            place = torch.arange(size, dtype=planes.dtype, device=planes.device)
            planes[axes - 1 - axis] = place.view([-1] + [1] * (axes - 1 - axis))
        if coloured:
            planes[axes:] = self.images.transpose(0, 1)
        return planes.flatten(2)

    def equals(self, other: PixelGrid, *, coloured: bool) -> bool:
        """Whether the coordinates are the same, on the same device and in the same precision."""
        mine, theirs = self.images, other.images
        if (mine.dtype, mine.device, self.count, self.shape) != (
            theirs.dtype,
            theirs.device,
            other.count,
            other.shape,
        ):
            return False
        return not coloured or torch.equal(mine, theirs)


def pixels(batch: Tensor) -> Tensor:
    """(B, C, *S) -> (N, C), image by image, each row-major; a view of planes (C, N)."""
    return batch.transpose(0, 1).reshape(batch.shape[1], -1).T


def grid(vectors: Tensor, images: int, shape: tuple[int, ...]) -> Tensor:
    """(..., N, C) -> (..., B, C, *S), a view."""
    planes = vectors.transpose(-1, -2)
    planes = planes.reshape(*planes.shape[:-1], images, *shape)
    return planes.movedim(-1 - len(shape), -2 - len(shape))
