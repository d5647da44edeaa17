"""Soft labels: another network's class probabilities, for distillation (Hinton et al. 2015)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from napari_deepcrf.data.transforms import CropGeometry


class SoftLabels:
    """Low-resolution probabilities of every sample of a dataset, each over the whole image.

    ``maps`` holds one (L, h, w) array per sample, in the dataset's order.
    """

    def __init__(self, maps: list[NDArray[np.float16]]) -> None:
        self.maps = maps

    @classmethod
    def load(cls, path: Path | str, names: tuple[str, ...]) -> SoftLabels:
        """Read an .npz of one float16 array per sample name; ValueError names what is missing."""
        with np.load(path, allow_pickle=False) as stored:
            missing = [name for name in names if name not in stored.files]
            if missing:
                raise ValueError(
                    f"{path}: no soft labels for {', '.join(missing[:5])}"
                    f"{' and others' if len(missing) > 5 else ''}"
                )
            return cls([stored[name] for name in names])

    def crop(self, index: int, window: CropGeometry, shape: tuple[int, ...], size: int) -> Tensor:
        """(L, size, size) probabilities in a window of an (H, W) image, zero outside it."""
        height, width = shape[:2]
        sign = -1.0 if window.flip else 1.0
        scale_y, scale_x = window.side / height, window.side / width
        centre_y = (2 * window.top + window.side) / height - 1
        centre_x = (2 * window.left + window.side) / width - 1
        theta = torch.tensor([[[sign * scale_x, 0.0, centre_x], [0.0, scale_y, centre_y]]])
        values = torch.from_numpy(self.maps[index]).float()[None]
        grid = F.affine_grid(theta, [1, values.shape[1], size, size], align_corners=False)
        inside = (grid.abs() <= 1).all(dim=-1)[:, None]
        sampled = F.grid_sample(values, grid, padding_mode="border", align_corners=False)
        return (sampled * inside)[0]
