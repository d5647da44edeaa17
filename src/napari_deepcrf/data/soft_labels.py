"""Soft labels: another network's class probabilities, for distillation (Hinton et al. 2015)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from napari_deepcrf.data.npz import open_npz
from napari_deepcrf.data.transforms import CropGeometry


class SoftLabels:
    """Low-resolution probabilities of every sample of a dataset, each over the whole image.

    ``maps`` holds one (L, h, w) array per sample, in the dataset's order.
    """

    def __init__(self, maps: list[NDArray[np.float16]]) -> None:
        self.maps = maps

    @classmethod
    def load(cls, path: Path | str, names: tuple[str, ...]) -> SoftLabels:
        """Read an .npz of one (L, h, w) float array per sample name.

        Raises ValueError that names the file and what is missing in it or wrong with it.
        """
        with open_npz(path) as stored:
            missing = [name for name in names if name not in stored.files]
            maps = [] if missing else [stored[name] for name in names]
        if missing:
            raise ValueError(
                f"{path}: no soft labels for {', '.join(missing[:5])}"
                f"{' and others' if len(missing) > 5 else ''}"
            )
        for name, probabilities in zip(names, maps, strict=True):
            if probabilities.ndim != 3 or probabilities.dtype.kind != "f":
                raise ValueError(
                    f"{path}: {name}: expected (L, h, w) floats, got {probabilities.dtype} of "
                    f"shape {probabilities.shape}"
                )
            if not np.isfinite(probabilities).all():
                raise ValueError(f"{path}: {name}: expected probabilities, got NaN or infinity")
        return cls(maps)

    def crop(self, index: int, window: CropGeometry, shape: tuple[int, ...], stride: int) -> Tensor:
        """(L, n, n) probabilities at every ``stride``-th pixel of a window, zero outside the image.

        ``shape`` starts with the image's H and W in the pixels that ``window`` counts.
        """
        along = (torch.arange(0, window.size, stride) + 0.5) / window.size
        across = 1 - along if window.flip else along
        y = 2 * (window.top + window.side * along) / shape[0] - 1
        x = 2 * (window.left + window.side * across) / shape[1] - 1
        grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)[None]
        values = torch.from_numpy(self.maps[index]).float()[None]
        sampled = F.grid_sample(values, grid, padding_mode="border", align_corners=False)
        inside = (grid.abs() <= 1).all(dim=-1)
        return (sampled * inside[:, None])[0]
