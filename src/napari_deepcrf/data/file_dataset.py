"""Datasets whose samples are pairs of files, and the reading of a pair."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from napari_deepcrf.data.samples import DatasetError, Sample
from napari_deepcrf.messages import first_line

Reader = Callable[[Path], NDArray[np.uint8]]
"""Reads an image (H, W, 3) or labels (H, W)."""

Pairs = Sequence[tuple[Path, Path]]
"""Image and labels file of every sample."""

LONGEST_NAME = 200
"""Characters; file systems allow some 255 bytes."""


def short(path: Path) -> str:
    """A file by its folder and name, for messages."""
    return f"{path.parent.name}/{path.name}"


def read_text(path: Path) -> str:
    """A list of names in UTF-8, with or without a byte order mark.

    Raises `DatasetError` for another encoding, and for a word of more than `LONGEST_NAME`
    characters, which is no name.
    """
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
            problems.append(f"{short(path)}: {first_line(error).removeprefix(f'{path}: ')}")
        # Decoders raise whatever their broken input leads to.
        except Exception as error:
            problems.append(f"{short(path)}: unreadable ({first_line(error)})")
    if problems:
        raise DatasetError(name, problems)
    return Sample(name, *arrays)


class FileDataset(ABC):
    """Samples that are read from their files whenever they are asked for."""

    class_names: tuple[str, ...]
    names: tuple[str, ...]
    pairs: Pairs

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file whose content the samples come from."""
        return tuple(path for pair in self.pairs for path in pair)

    @abstractmethod
    def _read_image(self, path: Path) -> NDArray[np.uint8]:
        """(H, W, 3) RGB."""

    @abstractmethod
    def _read_labels(self, path: Path) -> NDArray[np.uint8]:
        """(H, W) class indices, `VOID` where there is none."""

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Sample:
        return read_pair(self.names[index], self.pairs[index], self._read_image, self._read_labels)
