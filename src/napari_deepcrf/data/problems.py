"""Finding everything that is wrong with a dataset, so that all of it can be told at once."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from napari_deepcrf.data.file_dataset import Pairs, short
from napari_deepcrf.data.samples import (
    DatasetError,
    Sample,
    SegmentationDataset,
    check_sample,
)


@contextmanager
def collecting(problems: list[str], role: str = "") -> Iterator[None]:
    """Add a `DatasetError`'s problems, each led by ``role``, and go on behind the block."""
    try:
        yield
    except DatasetError as error:
        problems += [f"{role}{problem}" for problem in error.problems]


def sound_samples(dataset: SegmentationDataset, problems: list[str]) -> Iterator[Sample]:
    """Every sample that can be used; what is wrong with the others is added to ``problems``.

    At the end also every class of the dataset's ``required_classes``, if it has any, that no
    readable pixel is labelled with.
    """
    pairs: Pairs | None = getattr(dataset, "pairs", None)
    seen: set[int] = set()
    for index in range(len(dataset)):
        try:
            sample = dataset[index]
        except DatasetError as error:
            problems += error.problems
            continue
        except ValueError as error:
            problems.append(str(error))
            continue
        seen |= set(np.unique(sample.labels).tolist())
        file = None if pairs is None else short(pairs[index][1])
        problem = check_sample(sample, len(dataset.class_names), file=file)
        if problem is None:
            yield sample
        else:
            problems.append(problem)
    problems += empty_classes(
        dataset.class_names, seen, required=getattr(dataset, "required_classes", ())
    )


def check_dataset(dataset: SegmentationDataset, where: str = "dataset") -> None:
    """Read every sample; raises `DatasetError` with all that is wrong."""
    problems: list[str] = []
    for _ in sound_samples(dataset, problems):
        pass
    if problems:
        raise DatasetError(where, problems)


def check_files(dataset: SegmentationDataset, pairs: Pairs, where: str) -> None:
    """Raise `DatasetError` if a file is missing, with everything else that is wrong as well."""
    if not all(path.is_file() for pair in pairs for path in pair):
        check_dataset(dataset, where)


def empty_classes(
    class_names: Sequence[str], seen: Collection[int], *, required: Collection[str]
) -> list[str]:
    """One phrase for each required class whose index was not seen."""
    return [
        f"no pixel is labelled {name!r} (label {index + 1})"
        for index, name in enumerate(class_names)
        if index not in seen and name in required
    ]
