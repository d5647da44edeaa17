"""The work on one image: its file's bytes in, the result's files out, on whatever machine."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from napari_deepcrf.batch.formats import Files, class_areas, find_format
from napari_deepcrf.data.image_files import decode_image
from napari_deepcrf.inference import Predictor
from napari_deepcrf.messages import first_line
from napari_deepcrf.models import DeepCRF


@dataclass(frozen=True, kw_only=True)
class WorkSettings:
    """What a worker must know beside the model. Raises ValueError for an unknown format."""

    kind: str = "png"
    """png, numpy, ome-zarr or coco-rle."""
    device: str = "auto"
    """What `resolve_device` takes, on every machine."""
    memory: int | None = None
    """Bytes that the process may take; an image that takes more is done in tiles."""

    def __post_init__(self) -> None:
        find_format(self.kind)


@dataclass(frozen=True)
class Task:
    """One image to be segmented."""

    number: int
    image: str
    """Its path as the user gave it."""
    content: bytes
    """The file's bytes."""


@dataclass(frozen=True)
class WorkerInfo:
    """Who did the work."""

    address: str
    device: str
    """Its product name and memory, or the number of CPU threads."""
    memory: int
    """Resident bytes of the process when the image was done."""
    memory_limit: int | None
    """Bytes that the process may take, None where nobody set a limit."""


@dataclass(frozen=True)
class Labelled:
    """The result of one image."""

    files: Files
    size: tuple[int, int]
    """(H, W)."""
    areas: dict[str, int]
    """Pixels of every class."""
    worker: WorkerInfo | None = None


@dataclass(frozen=True)
class Rejected:
    """Why there is no result of one image, in one line."""

    reason: str


Outcome = Labelled | Rejected


class Segmenter:
    """A model on a device and a format: turns tasks into outcomes, and never raises."""

    def __init__(self, model: DeepCRF, settings: WorkSettings) -> None:
        self._format, self._memory = find_format(settings.kind), settings.memory
        self.predictor = Predictor(model, device=settings.device)

    def __call__(self, task: Task) -> Outcome:
        try:
            pixels = decode_image(io.BytesIO(task.content), task.image)
            labels = self.predictor.labels(pixels, memory=self._memory)
            names = self.predictor.class_names
            files = self._format.encode(labels, names, task.image)
        # Whatever is wrong with an image, memory for it included, must stop no other one.
        except Exception as error:
            return Rejected(first_line(error))
        height, width = labels.shape
        return Labelled(files, (height, width), class_areas(labels, names))


class Workers(Protocol):
    """What runs tasks: in this process, or on a cluster."""

    def submit(self, task: Task) -> None:
        """Take one more task; not to be called while `full`."""

    @property
    def full(self) -> bool:
        """Whether an outcome should be waited for before more tasks are given."""

    @property
    def pending(self) -> int:
        """How many outcomes are still to come."""

    def next(self) -> tuple[Task, Outcome]:
        """Wait for one task to end; raises ConnectionError where none ever will."""


class LocalWorker:
    """One image after the other in this process."""

    def __init__(self, segmenter: Segmenter) -> None:
        self._segmenter = segmenter
        self._tasks: list[Task] = []

    def submit(self, task: Task) -> None:
        """Remember the task until it is asked for."""
        self._tasks.append(task)

    @property
    def full(self) -> bool:
        """One task is enough."""
        return bool(self._tasks)

    @property
    def pending(self) -> int:
        """Tasks not yet done."""
        return len(self._tasks)

    def next(self) -> tuple[Task, Outcome]:
        """Segment the first image."""
        task = self._tasks.pop(0)
        return task, self._segmenter(task)


@contextmanager
def local_worker(model: DeepCRF, settings: WorkSettings) -> Iterator[Workers]:
    """One worker, which is this process."""
    yield LocalWorker(Segmenter(model, settings))
