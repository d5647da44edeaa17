"""Training batches that depend on nothing but the seed and the step, so that runs can resume."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from napari_deepcrf.data.samples import SegmentationDataset
from napari_deepcrf.data.soft_labels import SoftLabels
from napari_deepcrf.data.transforms import augment
from napari_deepcrf.training.config import UnaryStage


@dataclass(frozen=True)
class Batch:
    """(B, 3, h, w) images in 0–255, (B, h, w) labels, the samples' names, soft labels if any.

    ``soft`` is (B, L, h/stride, w/stride) teacher probabilities, zero outside the image.
    """

    images: Tensor
    labels: Tensor
    names: tuple[str, ...]
    soft: Tensor | None


class _CropDataset(Dataset[tuple[Tensor, Tensor, str, Tensor | None]]):
    """Crops indexed by their number in the run: the n-th crop of a seed is always the same."""

    def __init__(
        self, dataset: SegmentationDataset, stage: UnaryStage, seed: int, soft: SoftLabels | None
    ) -> None:
        self.dataset, self.stage, self.seed, self.soft = dataset, stage, seed, soft

    def __len__(self) -> int:
        return self.stage.iterations * self.stage.batch_size

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor, str, Tensor | None]:
        epoch, position = divmod(number, len(self.dataset))
        index = int(_permutation(self.seed, epoch, len(self.dataset))[position])
        sample = self.dataset[index]
        rng = np.random.default_rng((self.seed, number))
        image, labels, window = augment(sample, self.stage.augmentation, rng)
        soft = None
        if self.soft is not None:
            size = labels[:: self.stage.loss_stride, :: self.stage.loss_stride].shape[0]
            soft = self.soft.crop(index, window, sample.labels.shape, size)
        return (
            torch.from_numpy(image).permute(2, 0, 1),
            torch.from_numpy(np.ascontiguousarray(labels)),
            sample.name,
            soft,
        )


@lru_cache(maxsize=2)
def _permutation(seed: int, epoch: int, length: int) -> np.ndarray[tuple[int], np.dtype[np.intp]]:
    return np.random.default_rng((seed, epoch, length)).permutation(length)


def _collate(crops: list[tuple[Tensor, Tensor, str, Tensor | None]]) -> Batch:
    images, labels, names, soft = zip(*crops, strict=True)
    stacked = None if soft[0] is None else torch.stack(soft)
    return Batch(torch.stack(images), torch.stack(labels), tuple(names), stacked)


def batches(
    dataset: SegmentationDataset,
    stage: UnaryStage,
    *,
    seed: int,
    start: int,
    soft: SoftLabels | None = None,
) -> Iterator[Batch]:
    """The batches of steps ``start`` to the stage's last."""
    size = stage.batch_size
    numbers = [
        list(range(step * size, (step + 1) * size)) for step in range(start, stage.iterations)
    ]
    loader = DataLoader(
        _CropDataset(dataset, stage, seed, soft),
        batch_sampler=numbers,
        num_workers=stage.workers,
        collate_fn=_collate,
        prefetch_factor=4 if stage.workers else None,
    )
    yield from loader
