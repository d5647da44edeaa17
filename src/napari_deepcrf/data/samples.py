"""What every dataset of the package yields: an image, its labels and a name for messages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

VOID = 255
"""The label of pixels that no loss and no metric counts: void, unlabelled, outside the image."""


@dataclass(frozen=True)
class Sample:
    """One labelled image.

    ``image`` is (H, W, 3) uint8 RGB, ``labels`` (H, W) uint8 class indices with `VOID` where
    there is no label.
    """

    name: str
    image: NDArray[np.uint8]
    labels: NDArray[np.uint8]


class SegmentationDataset(Protocol):
    """A sequence of samples with the names of their classes.

    One of files also has ``pairs`` and ``files``, as `FileDataset`, by which messages name a file
    and copies are kept between runs. ``required_classes``, where it is there, names those that
    must occur.
    """

    class_names: tuple[str, ...]

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...


class EvenSubset:
    """At most ``count`` samples of a dataset, evenly spread over it."""

    def __init__(self, dataset: SegmentationDataset, count: int) -> None:
        self.class_names = dataset.class_names
        self._dataset = dataset
        self._indices = np.linspace(0, len(dataset) - 1, min(count, len(dataset))).round()

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> Sample:
        return self._dataset[int(self._indices[index])]


SHOWN_PROBLEMS = 30
"""How many problems a message lists before it only counts the rest."""


class DatasetError(ValueError):
    """A dataset cannot be used.

    ``problems`` lists everything that is wrong with it; the message the first
    `SHOWN_PROBLEMS`, in one line, and how many more there are.
    """

    def __init__(self, where: str, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        count = f"{len(problems)} problem" + ("s" if len(problems) != 1 else "")
        shown = "; ".join(problems[:SHOWN_PROBLEMS])
        more = len(problems) - SHOWN_PROBLEMS
        super().__init__(f"{where}: {count}: {shown}" + (f"; and {more} more" if more > 0 else ""))


def check_sample(sample: Sample, num_classes: int, *, file: str | None = None) -> str | None:
    """What is wrong with a sample, in one phrase, or ``None``.

    The phrase names ``file``, by default the sample.
    """
    title = file or sample.name
    if sample.image.shape[:2] != sample.labels.shape:
        return (
            f"{title}: image is {sample.image.shape[1]}×{sample.image.shape[0]} but labels "
            f"are {sample.labels.shape[1]}×{sample.labels.shape[0]}"
        )
    classes = np.unique(sample.labels)
    unknown = classes[(classes >= num_classes) & (classes != VOID)]
    if unknown.size:
        return (
            f"{title}: label {int(unknown[0])} is out of range, expected 0 to "
            f"{num_classes - 1} or {VOID} (void)"
        )
    if np.all(classes == VOID):
        return f"{title}: no labelled pixel"
    return None
