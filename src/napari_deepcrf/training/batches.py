"""Training batches that depend on nothing but the seed and the step, so that runs can resume."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import Any, Self, TypeVar

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

_GPU_WORKERS = 4

BatchT = TypeVar("BatchT", bound="Batch")


@dataclass(frozen=True)
class Batch:
    """What one step sees, by the samples' names."""

    names: tuple[str, ...]

    def _mapped(self, change: Callable[[Tensor], Tensor]) -> Self:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(
            self, **{name: _map(value, change) for name, value in values.items() if name != "names"}
        )

    def pin_memory(self) -> Self:
        """The same in page-locked memory, from which a GPU copies while it computes."""
        return self._mapped(Tensor.pin_memory)

    def to(self, device: torch.device) -> Self:
        """The same on a device."""
        return self._mapped(lambda tensor: tensor.to(device, non_blocking=True))


def _map(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(value, tuple):
        return tuple(change(part) for part in value)
    return None if value is None else change(value)


@dataclass(frozen=True)
class CropBatch(Batch):
    """Crops of one size."""

    images: Tensor
    """(B, 3, h, w) float32 in 0–255"""
    labels: Tensor
    """(B, h, w) uint8"""
    soft: Tensor | None
    """(B, L, ⌈h/stride⌉, ⌈w/stride⌉) teacher probabilities, zero outside the image"""

    def split(self, size: int | None) -> Iterator[CropBatch]:
        """The batch in parts of at most ``size`` crops; ``None``: in one."""
        for start in range(0, len(self.names), size or len(self.names)):
            part = slice(start, None if size is None else start + size)
            yield CropBatch(
                names=self.names[part],
                images=self.images[part],
                labels=self.labels[part],
                soft=None if self.soft is None else self.soft[part],
            )


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
    device: torch.device,
) -> Iterator[CropBatch]:
    """Random crops for the steps ``start`` to the stage's last, prepared for ``device``."""
    return _load(_Crops(dataset, stage, seed, soft), _collate_crops, stage, start, device)


def image_batches(
    dataset: SegmentationDataset, stage: JointStage, *, seed: int, start: int, device: torch.device
) -> Iterator[ImageBatch]:
    """Whole images, perhaps mirrored, for the steps ``start`` to the stage's last."""
    return _load(_Images(dataset, stage, seed), _collate_images, stage, start, device)


def worker_count(stage: StageConfig, device: torch.device) -> int:
    """How many processes prepare a stage's batches."""
    if stage.workers is not None:
        return stage.workers
    return min(_GPU_WORKERS, max(1, (os.cpu_count() or 2) - 1)) if device.type == "cuda" else 0


def _load(
    numbered: Dataset[Any],
    collate: Callable[[list[Any]], BatchT],
    stage: StageConfig,
    start: int,
    device: torch.device,
) -> Iterator[BatchT]:
    workers = worker_count(stage, device)
    yield from DataLoader(
        numbered,
        batch_sampler=[_share(step, stage) for step in range(start, stage.iterations)],
        num_workers=workers,
        collate_fn=collate,
        prefetch_factor=4 if workers else None,
        pin_memory=device.type == "cuda",
    )


class _Crops(Dataset[tuple[str, Tensor, Tensor, Tensor | None]]):
    """Crops by their number in the run: the n-th crop of a seed is always the same."""

    def __init__(
        self, dataset: SegmentationDataset, stage: UnaryStage, seed: int, soft: SoftLabels | None
    ) -> None:
        self.dataset, self.stage, self.seed, self.soft = dataset, stage, seed, soft

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


class _Images(Dataset[tuple[str, Tensor, Tensor]]):
    """Whole images by their number in the run, mirrored or not."""

    def __init__(self, dataset: SegmentationDataset, stage: JointStage, seed: int) -> None:
        self.dataset, self.stage, self.seed = dataset, stage, seed

    def __getitem__(self, number: int) -> tuple[str, Tensor, Tensor]:
        sample = self.dataset[_shuffled_index(self.seed, number, len(self.dataset))]
        if self.stage.flip and np.random.default_rng((self.seed, number)).random() < 0.5:
            sample = Sample(sample.name, sample.image[:, ::-1], sample.labels[:, ::-1])
        return sample.name, image_tensor(sample), torch.tensor(sample.labels.copy())[None]


def _collate_crops(crops: list[tuple[str, Tensor, Tensor, Tensor | None]]) -> CropBatch:
    names, images, labels, soft = zip(*crops, strict=True)
    return CropBatch(
        names=tuple(names),
        images=torch.stack(images),
        labels=torch.stack(labels),
        soft=None if soft[0] is None else torch.stack(soft),
    )


def _collate_images(samples: list[tuple[str, Tensor, Tensor]]) -> ImageBatch:
    names, images, labels = zip(*samples, strict=True)
    return ImageBatch(names=tuple(names), images=tuple(images), labels=tuple(labels))


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
