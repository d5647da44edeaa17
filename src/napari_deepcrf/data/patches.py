"""Patches of large images at their native scale, as samples of their own."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from napari_deepcrf.data.images import MIN_SIDE
from napari_deepcrf.data.samples import VOID, DatasetError, Sample, SegmentationDataset


class Patches:
    """Every labelled patch of a dataset's images.

    Each image is cut evenly into the fewest patches of at most ``size`` pixels a side, so that
    every pixel lies in exactly one. Patches without a labelled pixel are left out.

    Raises `DatasetError` where nothing is left, and ValueError for a size below 8 pixels.
    """

    def __init__(self, dataset: SegmentationDataset, size: int) -> None:
        if size < MIN_SIDE:
            raise ValueError(f"size: expected at least {MIN_SIDE} pixels, got {size}")
        self.class_names = dataset.class_names
        self._windows: list[tuple[int, slice, slice]] = []
        self._dataset = dataset
        self._last: tuple[int, Sample] | None = None
        for index in range(len(dataset)):
            labels = self._read(index).labels
            for rows in _cuts(labels.shape[0], size):
                for columns in _cuts(labels.shape[1], size):
                    if np.any(labels[rows, columns] != VOID):
                        self._windows.append((index, rows, columns))
        if not self._windows:
            raise DatasetError("patches", ["no labelled pixel"])

    def __len__(self) -> int:
        return len(self._windows)

    def _read(self, index: int) -> Sample:
        # Patches of one image are mostly asked for one after the other.
        if self._last is None or self._last[0] != index:
            self._last = index, self._dataset[index]
        return self._last[1]

    def __getitem__(self, index: int) -> Sample:
        number, rows, columns = self._windows[index]
        whole = self._read(number)
        place = f"rows {rows.start}-{rows.stop}, columns {columns.start}-{columns.stop}"
        window = rows, columns
        return Sample(f"{whole.name} ({place})", whole.image[window], whole.labels[window])


def _cuts(extent: int, size: int) -> list[slice]:
    """An axis in the fewest nearly equal parts of at most ``size``."""
    parts = -(-extent // size)
    ends = [extent * part // parts for part in range(parts + 1)]
    return [slice(start, stop) for start, stop in pairwise(ends)]
