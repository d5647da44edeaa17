"""Training batches that depend on nothing but the seed and the step, so that runs can resume."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from napari_deepcrf.data.samples import Sample, SegmentationDataset
from napari_deepcrf.data.soft_labels import SoftLabels
from napari_deepcrf.data.transforms import augment
from napari_deepcrf.training.config import JointStage, StageConfig, UnaryStage
from napari_deepcrf.training.distributed import rank, world_size


@dataclass(frozen=True)
class Batch:
    """What one step sees, by the samples' names."""

    names: tuple[str, ...]


@dataclass(frozen=True)
class CropBatch(Batch):
    """Crops of one size."""

    images: Tensor
    """(B, 3, h, w) float32 in 0–255"""
    labels: Tensor
    """(B, h, w) uint8"""
    soft: Tensor | None
    """(B, L, ⌈h/stride⌉, ⌈w/stride⌉) teacher probabilities, zero outside the image"""


@dataclass(frozen=True)
class ImageBatch(Batch):
    """Whole images, each of its own size."""

    images: tuple[Tensor, ...]
    """B times (1, 3, H, W) float32 in 0–255"""
    labels: tuple[Tensor, ...]
    """B times (1, H, W) uint8"""


def image_tensor(sample: Sample) -> Tensor:
    """(1, 3, H, W) float32 image of a sample, in 0–255."""
    return torch.tensor(sample.image.copy()).permute(2, 0, 1)[None].float()


def crop_batches(
    dataset: SegmentationDataset,
    stage: UnaryStage,
    *,
    seed: int,
    start: int,
    soft: SoftLabels | None = None,
) -> Iterator[CropBatch]:
    """Random crops for the steps ``start`` to the stage's last."""
    numbers = [_share(step, stage) for step in range(start, stage.iterations)]
    yield from DataLoader(
        _Crops(dataset, stage, seed, soft),
        batch_sampler=numbers,
        num_workers=stage.workers,
        collate_fn=_collate,
        prefetch_factor=4 if stage.workers else None,
    )


def image_batches(
    dataset: SegmentationDataset, stage: JointStage, *, seed: int, start: int
) -> Iterator[ImageBatch]:
    """Whole images, perhaps mirrored, for the steps ``start`` to the stage's last."""
    for step in range(start, stage.iterations):
        samples = []
        for number in _share(step, stage):
            sample = dataset[_shuffled_index(seed, number, len(dataset))]
            mirrored = stage.flip and np.random.default_rng((seed, number)).random() < 0.5
            if mirrored:
                sample = Sample(sample.name, sample.image[:, ::-1], sample.labels[:, ::-1])
            samples.append(sample)
        yield ImageBatch(
            names=tuple(sample.name for sample in samples),
            images=tuple(image_tensor(sample) for sample in samples),
            labels=tuple(torch.tensor(sample.labels.copy())[None] for sample in samples),
        )


class _Crops(Dataset[tuple[str, Tensor, Tensor, Tensor | None]]):
    """Crops by their number in the run: the n-th crop of a seed is always the same."""

    def __init__(
        self, dataset: SegmentationDataset, stage: UnaryStage, seed: int, soft: SoftLabels | None
    ) -> None:
        self.dataset, self.stage, self.seed, self.soft = dataset, stage, seed, soft

    def __len__(self) -> int:
        return self.stage.iterations * self.stage.batch_size

    def __getitem__(self, number: int) -> tuple[str, Tensor, Tensor, Tensor | None]:
        index = _shuffled_index(self.seed, number, len(self.dataset))
        sample = self.dataset[index]
        rng = np.random.default_rng((self.seed, number))
        image, labels, window = augment(sample, self.stage.augmentation, rng)
        soft = None
        if self.soft is not None:
            soft = self.soft.crop(index, window, sample.labels.shape, self.stage.loss_stride)
        return (
            sample.name,
            torch.from_numpy(image).permute(2, 0, 1),
            torch.from_numpy(np.ascontiguousarray(labels)),
            soft,
        )


def _collate(crops: list[tuple[str, Tensor, Tensor, Tensor | None]]) -> CropBatch:
    names, images, labels, soft = zip(*crops, strict=True)
    return CropBatch(
        names=tuple(names),
        images=torch.stack(images),
        labels=torch.stack(labels),
        soft=None if soft[0] is None else torch.stack(soft),
    )


def _share(step: int, stage: StageConfig) -> list[int]:
    """Numbers of the samples of a step that this process works on."""
    first = step * stage.batch_size
    return list(range(first + rank(), first + stage.batch_size, world_size()))


def _shuffled_index(seed: int, number: int, length: int) -> int:
    """Index of the run's n-th sample, every epoch being a permutation of its own."""
    epoch, position = divmod(number, length)
    return int(_permutation(seed, epoch, length)[position])


@lru_cache(maxsize=2)
def _permutation(seed: int, epoch: int, length: int) -> NDArray[np.intp]:
    return np.random.default_rng((seed, epoch, length)).permutation(length)
