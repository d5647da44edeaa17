"""Images and annotations in memory: 0 is unlabelled, k + 1 stands for class k."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_deepcrf.data.images import as_rgb
from napari_deepcrf.data.problems import empty_classes
from napari_deepcrf.data.samples import VOID, DatasetError, Sample, check_sample

MAX_CLASSES = 254
"""Annotations of 8 bits that leave `VOID` free."""


def from_annotation(labels: NDArray[Any]) -> NDArray[np.uint8]:
    """(H, W) annotation (0 unlabelled, class + 1) → class indices with `VOID`."""
    return np.where(labels == 0, VOID, labels.astype(np.int64) - 1).astype(np.uint8)


class ArrayDataset:
    """Pairs of an image, as `as_rgb` takes it, and an (H, W) integer annotation.

    A stack (Z, H, W[, C]) with an annotation (Z, H, W) gives a sample for every plane that has an
    annotated pixel. ``class_names`` defaults to "class 1" … "class L", L being the largest
    annotation. Raises `DatasetError` that lists every image that is none, every pair of unequal
    size, with annotations out of range or none at all, and every class that is annotated nowhere,
    but for those named in ``known``.
    """

    def __init__(
        self,
        pairs: Iterable[tuple[Any, NDArray[Any]]],
        class_names: Sequence[str] | None = None,
        *,
        names: Sequence[str] | None = None,
        known: Collection[str] = (),
    ) -> None:
        given = [(image, np.asarray(labels)) for image, labels in pairs]
        titles = list(names) if names is not None else [f"image {n + 1}" for n in range(len(given))]
        if not given:
            raise DatasetError("pairs", ["no image"])
        if class_names is not None and len(class_names) > MAX_CLASSES:
            raise DatasetError(
                "class_names", [f"expected at most {MAX_CLASSES} names, got {len(class_names)}"]
            )
        numbered = class_names is None
        self.class_names = tuple(
            _number_classes([labels for _, labels in given]) if class_names is None else class_names
        )
        self._samples: list[Sample] = []
        problems: list[str] = []
        for title, (image, labels) in zip(titles, given, strict=True):
            for plane in _planes(title, image, labels, problems):
                self._add(*plane, problems)
        seen = {int(label) for sample in self._samples for label in np.unique(sample.labels)}
        required = [name for name in self.class_names if name not in known]
        empty = empty_classes(self.class_names, seen, required=required)
        problems += [_gap(self.class_names, seen)] if numbered and empty else empty
        if problems:
            raise DatasetError("pairs", problems)

    def _add(self, title: str, image: Any, labels: NDArray[Any], problems: list[str]) -> None:
        """Keep a plane; what is wrong with it is added to ``problems``."""
        problem = _annotation_problem(title, labels, len(self.class_names))
        if problem is not None:
            problems.append(problem)
            return
        try:
            pixels = as_rgb(image).round().astype(np.uint8)
        except (ValueError, TypeError) as error:
            problems.append(f"{title}: {str(error).removeprefix('image: ')}")
            return
        sample = Sample(title, pixels, from_annotation(labels))
        problem = check_sample(sample, len(self.class_names))
        if problem is not None:
            problems.append(problem)
        self._samples.append(sample)

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> Sample:
        return self._samples[index]


def _number_classes(annotations: Sequence[NDArray[Any]]) -> list[str]:
    """Names up to the largest annotation, two at least."""
    numbers = [labels for labels in annotations if np.issubdtype(labels.dtype, np.integer)]
    highest = max((int(labels.max(initial=0)) for labels in numbers), default=0)
    return [f"class {n + 1}" for n in range(max(2, min(highest, MAX_CLASSES)))]


def _gap(class_names: Sequence[str], seen: Collection[int]) -> str:
    """What to do about numbers that nobody named and that do not occur."""
    gap = ", ".join(str(n + 1) for n in range(len(class_names)) if n not in seen)
    return (
        f"no pixel is labelled {gap}: number the classes 1, 2, … without gaps, or name what the "
        "numbers stand for by class_names (those of the model to go on with its own classes)"
    )


def _planes(
    title: str, image: Any, labels: NDArray[Any], problems: list[str]
) -> Iterator[tuple[str, Any, NDArray[Any]]]:
    """The pair itself, or the annotated planes of a stack, each with its title."""
    if labels.ndim != 3:
        yield title, image, labels
        return
    stack = np.asarray(image)
    if stack.shape[:3] != labels.shape:
        problems.append(
            f"{title}: labels must be (H, W), or (Z, H, W) for a stack, got shape {labels.shape} "
            f"for an image of shape {stack.shape}"
        )
        return
    annotated = np.flatnonzero(labels.any(axis=(1, 2)))
    if not annotated.size:
        problems.append(f"{title}: no labelled pixel")
    for plane in annotated:
        yield f"{title}, plane {plane}", stack[plane], labels[plane]


def _annotation_problem(title: str, labels: NDArray[Any], num_classes: int) -> str | None:
    if not np.issubdtype(labels.dtype, np.integer):
        return f"{title}: labels must be integers, got {labels.dtype}"
    if labels.ndim != 2:
        return f"{title}: labels must be (H, W), got shape {labels.shape}"
    low, high = int(labels.min(initial=0)), int(labels.max(initial=0))
    if low < 0 or high > num_classes:
        wrong = low if low < 0 else high
        return f"{title}: label {wrong} is out of range, expected 0 (unlabelled) to {num_classes}"
    return None
