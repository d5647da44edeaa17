"""The run over many images: skip what is done, do the rest, keep what is whole."""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Generator, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path

from napari_deepcrf.batch.formats import digest, find_format
from napari_deepcrf.batch.images import result_names
from napari_deepcrf.batch.records import Record, ResultFolder
from napari_deepcrf.batch.segmenter import (
    Outcome,
    Rejected,
    Task,
    WorkerInfo,
    Workers,
    WorkSettings,
    local_worker,
    one_line,
)
from napari_deepcrf.batch.summary import NAME, write_summary
from napari_deepcrf.inference.run_record import model_digest
from napari_deepcrf.models import DeepCRF

# Errors of the disk, after which no other result could be written either.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


@dataclass(frozen=True)
class ImageDone:
    """An image whose result lies there, whole."""

    image: Path
    result: Path
    size: tuple[int, int]
    """(H, W)."""
    areas: dict[str, int]
    """Pixels of every class."""
    skipped: bool = False
    """It was there already, of the same image, model and parameters."""
    worker: WorkerInfo | None = None


@dataclass(frozen=True)
class ImageFailed:
    """An image without a result, and why, in one line that names the file."""

    image: Path
    reason: str


@dataclass(frozen=True)
class SummaryWritten:
    """The table of all results in the folder."""

    path: Path


BatchEvent = ImageDone | ImageFailed | SummaryWritten


@dataclass(frozen=True, kw_only=True)
class BatchOptions(WorkSettings):
    """How a run is done."""

    scheduler: str | None = None
    """Address of a Dask scheduler whose workers do the work, instead of this process."""
    overwrite: bool = False
    """Replace files at the results' places that are no results of this image."""


def segment_files(
    images: Sequence[Path], out: Path, model: DeepCRF, options: BatchOptions
) -> Generator[BatchEvent, None, None]:
    """Segment image files; yields `ImageDone` or `ImageFailed` for each, `SummaryWritten` last.

    Results are written into ``out`` as they come, by this process alone. One that is there already
    is kept if it is of the same image bytes, model and parameters. An image that cannot be used
    stops nothing. The generator may be closed at any time: what is written is whole.

    Raises
    ------
    ValueError
        Results would overwrite images.
    OSError
        ``out`` cannot be written to, the disk is full, or the scheduler cannot be reached.
    """
    names = result_names(images)
    results = ResultFolder(out, find_format(options.kind), overwrite=options.overwrite)
    _keep_images(images, names, results)
    run = _Run(images, names, results, model_digest(model))
    try:
        with _workers(model, options) as workers:
            for number in range(len(images)):
                begun = run.begin(number)
                if isinstance(begun, Task):
                    workers.submit(begun)
                else:
                    yield begun
                while workers.full:
                    yield run.end(*workers.next())
            while workers.pending:
                yield run.end(*workers.next())
    except BaseException:  # cut short: the table lists what there is, where it can be written
        with suppress(OSError):
            write_summary(results)
        raise
    try:
        yield SummaryWritten(write_summary(results))
    except FileExistsError as error:
        yield ImageFailed(results.folder / NAME, one_line(error))


def _workers(model: DeepCRF, options: BatchOptions) -> AbstractContextManager[Workers]:
    if options.scheduler is None:
        return local_worker(model, options)
    from napari_deepcrf.batch.cluster import cluster_workers

    return cluster_workers(options.scheduler, model, options)


def _keep_images(images: Sequence[Path], names: Sequence[str], results: ResultFolder) -> None:
    """Raise ValueError where a result's place is that of an image."""
    sources = {image.resolve(): image for image in images}
    for name in names:
        image = sources.get(results.place(name).resolve())
        if image is not None:
            raise ValueError(f"out: {results.folder} would overwrite the image {image}")


def _failed(image: Path, error: OSError | str) -> ImageFailed:
    """A failure whose reason begins with the image's path."""
    if isinstance(error, OSError) and error.strerror:
        where = "" if error.filename in (None, str(image)) else f"{error.filename}: "
        reason = f"{where}{error.strerror}"
    else:
        reason = error if isinstance(error, str) else one_line(error)
    return ImageFailed(image, reason if reason.startswith(f"{image}: ") else f"{image}: {reason}")


class _Run:
    """The state of one run: what each number stands for."""

    def __init__(
        self, images: Sequence[Path], names: Sequence[str], results: ResultFolder, model: str
    ) -> None:
        self._images, self._names = images, names
        self._results, self._model = results, model
        self._hashes: dict[int, str] = {}

    def begin(self, number: int) -> Task | ImageDone | ImageFailed:
        """Read an image: a task, unless it is done already or must not or cannot be done."""
        image, name = self._images[number], self._names[number]
        try:
            content = image.read_bytes()
            sha256 = hashlib.sha256(content).hexdigest()
            record = self._results.finished(name, sha256, self._model)
            if record is not None:
                place = self._results.place(name)
                return ImageDone(image, place, record.size, record.areas, skipped=True)
            self._results.check_free(name, image, sha256)
        except FileNotFoundError:
            return ImageFailed(image, f"{image}: no such image file")
        except OSError as error:
            return _failed(image, error)
        if not content:
            return ImageFailed(image, f"{image}: expected an image file, got an empty one")
        self._hashes[number] = sha256
        return Task(number, str(image), content)

    def end(self, task: Task, outcome: Outcome) -> ImageDone | ImageFailed:
        """Write the result of a task; raises OSError where no more results can be written."""
        image, name = self._images[task.number], self._names[task.number]
        sha256 = self._hashes.pop(task.number)
        if isinstance(outcome, Rejected):
            return _failed(image, outcome.reason)
        record = Record(
            image=str(image.resolve()),
            image_sha256=sha256,
            model_sha256=self._model,
            size=outcome.size,
            areas=outcome.areas,
            sha256=digest(outcome.files),
            replaces=self._results.present(name),
        )
        place = self._results.place(name)
        try:
            self._results.write(name, outcome.files, record)
        except OSError as error:
            if error.errno in _FULL:
                raise OSError(
                    f"{place}: {error.strerror}; what is finished is kept, the same command goes "
                    "on from there"
                ) from error
            return _failed(image, error)
        return ImageDone(image, place, outcome.size, outcome.areas, worker=outcome.worker)
