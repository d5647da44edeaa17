"""Finding everything that is wrong with a dataset, so that all of it can be told at once."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from napari_deepcrf.data.samples import (
    DatasetError,
    Sample,
    SegmentationDataset,
    check_sample,
)

Reader = Callable[[Path], NDArray[np.uint8]]

Pairs = Sequence[tuple[Path, Path]]
"""Image and labels file of every sample of a dataset of files, as its attribute ``pairs``."""

LONGEST_NAME = 200
"""Characters; file systems allow some 255 bytes."""


def short(path: Path) -> str:
    """A file by its folder and name, for messages."""
    return f"{path.parent.name}/{path.name}"


def read_text(path: Path) -> str:
    """A list of names, in UTF-8 with or without a byte order mark; `DatasetError` for another."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DatasetError(str(path), [f"expected text in UTF-8 ({error.reason})"]) from error
    longest = max(text.split(), key=len, default="")
    if len(longest) > LONGEST_NAME:
        raise DatasetError(str(path), [f"expected names, got {longest[:20]}… of {len(longest)}"])
    return text


def read_pair(name: str, files: tuple[Path, Path], image: Reader, labels: Reader) -> Sample:
    """Read an image and its labels; `DatasetError` names each of the two that is amiss."""
    arrays, problems = [], []
    for kind, path, read in zip(("image", "labels"), files, (image, labels), strict=True):
        if not path.is_file():
            problems.append(f"missing {kind} {short(path)}")
            continue
        try:
            arrays.append(read(path))
        except ValueError as error:
            problems.append(f"{short(path)}: {_reason(error).removeprefix(f'{path}: ')}")
        # Decoders raise whatever their broken input leads to.
        except Exception as error:
            problems.append(f"{short(path)}: unreadable ({_reason(error)})")
    if problems:
        raise DatasetError(name, problems)
    return Sample(name, *arrays)


def _reason(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


@contextmanager
def collecting(problems: list[str], role: str = "") -> Iterator[None]:
    """Go on behind a `DatasetError` of the block, its problems kept, each led by ``role``."""
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
