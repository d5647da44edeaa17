"""Reduced copies of a dataset, decoded and checked once and kept in memory.

Decoding a JPEG costs more than a thin network's share of a training step, so training crops
from uint8 copies whose longer side has a fixed size.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from napari_deepcrf.atomic import atomic_write
from napari_deepcrf.data.npz import open_npz
from napari_deepcrf.data.problems import sound_samples
from napari_deepcrf.data.samples import DatasetError, Sample, SegmentationDataset


def reduce_sample(sample: Sample, size: int) -> Sample:
    """The sample with its longer side at most ``size`` pixels (labels by nearest neighbour)."""
    height, width = sample.labels.shape
    factor = size / max(height, width)
    if factor >= 1:
        return sample
    shape = (max(1, round(width * factor)), max(1, round(height * factor)))
    image = Image.fromarray(sample.image).resize(shape, Image.Resampling.BILINEAR)
    labels = Image.fromarray(sample.labels).resize(shape, Image.Resampling.NEAREST)
    return Sample(sample.name, np.asarray(image), np.asarray(labels))


class ReducedCopies:
    """The samples of ``dataset``, reduced to ``size`` pixels and checked.

    Reduced copies are kept in memory; samples of original size are read again whenever they are
    asked for, as they may be many gigabytes.

    Parameters
    ----------
    size
        Longer side of the copies in pixels; ``None`` keeps the original resolution.
    cache
        A folder that keeps the copies of named files between runs; ``None`` for none.

    Raises `DatasetError` listing every sample that is unreadable, of unequal size, without a
    labelled pixel or with labels out of range, and every class that must occur and does not.
    """

    def __init__(
        self, dataset: SegmentationDataset, size: int | None, *, cache: Path | None = None
    ) -> None:
        self.class_names = dataset.class_names
        self.size = size
        self._dataset = dataset
        self._samples: list[Sample] = []
        path = None if cache is None else cache / f"{_fingerprint(dataset, size)}.npz"
        kept = None if path is None else _load(path)
        if kept is not None:
            self._samples = kept
            return
        problems: list[str] = []
        for sample in sound_samples(dataset, problems):
            if size is not None:
                self._samples.append(reduce_sample(sample, size))
        if problems:
            raise DatasetError("dataset", problems)
        if path is not None:
            _save(path, self._samples)

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> Sample:
        return self._dataset[index] if self.size is None else self._samples[index]


def _fingerprint(dataset: SegmentationDataset, size: int | None) -> str:
    """Changes with classes and the files' names, sizes and times: what was mended is read anew."""
    files: tuple[Path, ...] | None = getattr(dataset, "files", None)
    if files is None:
        raise ValueError("cache: expected a dataset of files, got one in memory")
    stamps = [(str(path), (stat := path.stat()).st_size, stat.st_mtime_ns) for path in files]
    return hashlib.sha256(repr((size, dataset.class_names, stamps)).encode()).hexdigest()[:16]


def _save(path: Path, samples: list[Sample]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as file:
        np.savez(
            file,
            names=np.array([sample.name for sample in samples]),
            shapes=np.array([sample.labels.shape for sample in samples]),
            images=_flat([sample.image for sample in samples]),
            labels=_flat([sample.labels for sample in samples]),
        )


def _flat(arrays: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    return np.concatenate([np.empty(0, np.uint8), *(array.reshape(-1) for array in arrays)])


def _load(path: Path) -> list[Sample] | None:
    """What `_save` wrote, or ``None`` where it is not there or damaged: it is made anew."""
    samples, start = [], 0
    try:
        with open_npz(path) as stored:
            images, labels = stored["images"], stored["labels"]
            for name, (height, width) in zip(stored["names"], stored["shapes"], strict=True):
                stop = start + int(height) * int(width)
                image = images[3 * start : 3 * stop].reshape(height, width, 3)
                samples.append(Sample(str(name), image, labels[start:stop].reshape(height, width)))
                start = stop
    except (FileNotFoundError, ValueError):
        return None
    return samples
