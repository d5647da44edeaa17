"""Stacks plane by plane: the plane looked at first, the others in the background, in parallel.

For a viewer (no Qt here):

    stack = StackLabels(layer.data, predictor)          # (*S, H, W[, C]); reads nothing yet
    labels_layer = viewer.add_labels(stack.labels)      # zeros until a plane is done
    stack.focus(viewer.dims.current_step)               # whenever the viewer moves: do this next
    for index in stack.fill():                          # in a worker thread; ends when all is done
        ...                                             # labels_layer.refresh(), in the main thread

``fill`` yields the index of every plane as it is done and can be closed between two.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from dask.base import compute
from dask.delayed import delayed
from numpy.typing import NDArray

from napari_deepcrf.inference.lazy_image import open_array, read_plane
from napari_deepcrf.inference.predictor import Predictor
from napari_deepcrf.inference.tiling import Labels
from napari_deepcrf.interrupt import interruptible_elsewhere, raise_if_interrupted

Index = tuple[int, ...]
LabelPlane = Callable[[NDArray[Any]], Labels]
"""From an (H, W, C) plane to its (H, W) labels; runs in several threads at once."""


class StackLabels:
    """Labels (*S, H, W) of a stack (*S, H, W) or (*S, H, W, C), computed once, plane by plane.

    Parameters
    ----------
    image
        What `lazy_image.open_array` takes: NumPy, dask, zarr, OME-Zarr, pyramids.
    label_plane
        A `Predictor`, or what labels a plane in its place, such as a CRF with other settings.
    channel_axis
        Which axis of the image holds its channels, where that is not the last.
    workers
        Planes at once; by default one on a GPU, and one for each CPU thread elsewhere.
    earlier
        Labels of the same stack by the same model: planes that are done there are copied.

    Raises
    ------
    ValueError
        For an image without planes of two axes, or earlier labels of another shape.
    """

    def __init__(
        self,
        image: Any,
        label_plane: Predictor | LabelPlane,
        *,
        channel_axis: int | None = None,
        workers: int | None = None,
        earlier: StackLabels | None = None,
    ) -> None:
        self._image = open_array(image, channel_axis=channel_axis)
        if isinstance(label_plane, Predictor):
            workers = workers or (None if label_plane.device.type == "cpu" else 1)
            label_plane = label_plane.labels
        self._label_plane = label_plane
        self.workers = workers or _threads()
        self.labels: Labels = np.zeros(self._image.shape[:-1], np.uint8)
        """(*S, H, W), 0 where nothing is computed yet."""
        self._stack: Index = self._image.shape[:-3]
        self._done = np.zeros(self._stack, bool)
        if earlier is not None:
            if earlier.labels.shape != self.labels.shape:
                raise ValueError(
                    f"earlier: expected labels of {self.labels.shape}, got {earlier.labels.shape}"
                )
            self._done |= earlier._done
            self.labels[self._done] = earlier.labels[self._done]
        self._focus: Index = (0,) * len(self._stack)
        self._locks = {index: threading.Lock() for index in np.ndindex(*self._stack)}

    @property
    def num_planes(self) -> int:
        """How many planes there are."""
        return self._done.size

    @property
    def num_done(self) -> int:
        """How many of them are computed."""
        return int(self._done.sum())

    def is_done(self, index: Index) -> bool:
        """Whether a plane is computed."""
        return bool(self._done[index])

    def focus(self, step: Sequence[int]) -> None:
        """Compute this plane next, then those nearest to it.

        ``step`` may go on with positions within the plane, as a viewer's current step does.
        """
        pairs = zip(step, self._stack, strict=False)
        self._focus = tuple(int(min(max(i, 0), n - 1)) for i, n in pairs)

    def plane(self, index: Index) -> Labels:
        """(H, W) labels of a plane, computed now if they were not; ValueError names a bad one."""
        with self._locks[index]:
            if not self._done[index]:
                pixels = read_plane(self._image, index)
                try:
                    labels = self._label_plane(pixels)
                except ValueError as error:
                    raise ValueError(f"plane {', '.join(map(str, index))}: {error}") from error
                raise_if_interrupted()  # a plane that comes after the end is not written
                self.labels[index] = labels
                self._done[index] = True
        plane: Labels = self.labels[index]
        return plane

    def fill(self) -> Iterator[Index]:
        """Compute all planes that are missing, ``workers`` at once; yields each that is done.

        The next ones are always those nearest to the focus at that moment. What is `interruptible`
        ends in the midst of a plane.
        """
        task = delayed(interruptible_elsewhere(self.plane), pure=False)
        while batch := self._next(self.workers):
            # The plane in focus goes alone: nothing shares the processor with it.
            if batch[0] == self._focus:
                batch = batch[:1]
            threads = {"scheduler": "threads", "num_workers": self.workers}
            compute(*(task(index) for index in batch), **threads)
            yield from batch

    def _next(self, count: int) -> list[Index]:
        missing = np.argwhere(~self._done)
        distance = np.abs(missing - np.array(self._focus, int)).sum(1)
        nearest = missing[np.argsort(distance, kind="stable")[:count]]
        return [tuple(int(i) for i in index) for index in nearest]


def _threads() -> int:
    import torch

    return torch.get_num_threads()
