"""Images and annotations in memory: 0 is unlabelled, k + 1 stands for class k."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_deepcrf.data.samples import VOID, DatasetError, Sample, check_sample

MAX_CLASSES = 254


def from_annotation(labels: NDArray[Any]) -> NDArray[np.uint8]:
    """(H, W) annotation (0 unlabelled, class + 1) → class indices with `VOID`."""
    return np.where(labels == 0, VOID, labels.astype(np.int64) - 1).astype(np.uint8)


def to_annotation(labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(H, W) class indices with `VOID` → annotation (0 unlabelled, class + 1)."""
    return np.where(labels == VOID, 0, labels + 1).astype(np.uint8)


class ArrayDataset:
    """Pairs of an (H, W, 3) uint8 image and an (H, W) integer annotation.

    ``class_names`` defaults to "class 1" … "class L", L being the largest annotation. Raises
    `DatasetError` that lists every pair of unequal size, with annotations out of range or none at
    all, and every class that is annotated nowhere, but for those named in ``known``.
    """

    def __init__(
        self,
        pairs: Iterable[tuple[NDArray[np.uint8], NDArray[Any]]],
        class_names: Sequence[str] | None = None,
        *,
        names: Sequence[str] | None = None,
        known: Collection[str] = (),
    ) -> None:
        given = list(pairs)
        titles = list(names) if names is not None else [f"image {n + 1}" for n in range(len(given))]
        if not given:
            raise DatasetError("pairs", ["no image"])
        highest = max(int(np.max(labels, initial=0)) for _, labels in given)
        if class_names is None:
            class_names = [f"class {n + 1}" for n in range(max(2, min(highest, MAX_CLASSES)))]
        self.class_names = tuple(class_names)
        self._samples: list[Sample] = []
        problems = []
        for title, (image, labels) in zip(titles, given, strict=True):
            problem = _annotation_problem(title, labels, len(self.class_names))
            if problem is None:
                sample = Sample(title, np.asarray(image), from_annotation(np.asarray(labels)))
                problem = check_sample(sample, len(self.class_names))
                self._samples.append(sample)
            if problem is not None:
                problems.append(problem)
        if not problems:
            problems = self._empty_classes(known)
        if problems:
            raise DatasetError("pairs", problems)

    def _empty_classes(self, known: Collection[str]) -> list[str]:
        seen = np.zeros(VOID + 1, dtype=bool)
        for sample in self._samples:
            seen[np.unique(sample.labels)] = True
        return [
            f"no pixel is labelled {name!r}"
            for index, name in enumerate(self.class_names)
            if not seen[index] and name not in known
        ]

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> Sample:
        return self._samples[index]


def _annotation_problem(title: str, labels: NDArray[Any], num_classes: int) -> str | None:
    if not np.issubdtype(np.asarray(labels).dtype, np.integer):
        return f"{title}: labels must be integers, got {np.asarray(labels).dtype}"
    if np.ndim(labels) != 2:
        return f"{title}: labels must be (H, W), got shape {np.shape(labels)}"
    low, high = int(np.min(labels, initial=0)), int(np.max(labels, initial=0))
    if low < 0 or high > num_classes:
        wrong = low if low < 0 else high
        return f"{title}: label {wrong} is out of range, expected 0 (unlabelled) to {num_classes}"
    return None
