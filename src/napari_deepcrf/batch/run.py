"""The run over many images: skip what is done, do the rest, keep what is whole."""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Generator, Iterator, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path

from napari_deepcrf.batch.formats import find_format
from napari_deepcrf.batch.images import is_zarr, result_names
from napari_deepcrf.batch.records import Record, ResultFolder
from napari_deepcrf.batch.segmenter import (
    Outcome,
    Rejected,
    Task,
    WorkerInfo,
    Workers,
    WorkSettings,
    local_worker,
)
from napari_deepcrf.batch.summary import NAME, write_summary
from napari_deepcrf.batch.zarr_images import KIND, TilesDone, ZarrRun
from napari_deepcrf.digests import digest
from napari_deepcrf.inference import Predictor
from napari_deepcrf.inference.resampling import STRIDE
from napari_deepcrf.messages import first_line
from napari_deepcrf.models import DeepCRF
from napari_deepcrf.models.model_digest import model_digest

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


BatchEvent = ImageDone | ImageFailed | TilesDone | SummaryWritten


@dataclass(frozen=True, kw_only=True)
class BatchOptions(WorkSettings):
    """How a run is done."""

    scheduler: str | None = None
    """Address of a Dask scheduler whose workers do the work, instead of this process."""
    overwrite: bool = False
    """Replace files at the results' places that are no results of this image."""
    view: int = 1024
    """Pixels of a Zarr image that the network is to see side by side."""


def segment_files(
    images: Sequence[Path], out: Path, model: DeepCRF, options: BatchOptions
) -> Generator[BatchEvent, None, None]:
    """Segment images; yields `ImageDone` or `ImageFailed` for each, `SummaryWritten` last.

    Results are written into ``out`` as they come, by this process alone. One that is there already
    is kept if it is of the same image bytes, model and parameters. An image that cannot be used
    stops nothing. The generator may be closed at any time: what is written is whole.

    Zarr images come last, one after the other in this process, in tiles and as OME-Zarr whatever
    the format of the others; each yields `TilesDone` as it goes.

    Raises
    ------
    ValueError
        Results would overwrite images.
    OSError
        ``out`` cannot be written to, the disk is full, or the scheduler cannot be reached.
    """
    names = result_names(images)
    if options.view < STRIDE:
        raise ValueError(f"view: expected at least {STRIDE} pixels, got {options.view}")
    results = ResultFolder(out, find_format(options.kind), overwrite=options.overwrite)
    _keep_images(images, names, results)
    run = _Run(images, names, results, model_digest(model))
    zarr = [number for number, image in enumerate(images) if is_zarr(image)]
    files = [number for number, image in enumerate(images) if not is_zarr(image)]
    try:
        if files:
            with _workers(model, options) as workers:
                yield from _through(workers, run, files)
        if zarr:
            yield from _in_tiles(model, options, run, zarr)
    except BaseException:  # cut short: the table lists what there is, where it can be written
        with suppress(OSError):
            write_summary(results)
        raise
    try:
        yield SummaryWritten(write_summary(results))
    except FileExistsError as error:
        yield ImageFailed(results.folder / NAME, first_line(error))


def _through(workers: Workers, run: _Run, files: Sequence[int]) -> Iterator[BatchEvent]:
    """Image files by the workers, as each becomes free."""
    for number in files:
        begun = run.begin(number)
        if isinstance(begun, Task):
            workers.submit(begun)
        else:
            yield begun
        while workers.full:
            yield run.end(*workers.next())
    while workers.pending:
        yield run.end(*workers.next())


def _in_tiles(
    model: DeepCRF, options: BatchOptions, run: _Run, zarr: Sequence[int]
) -> Iterator[BatchEvent]:
    """Zarr images by this process."""
    work = ZarrRun(
        results=ResultFolder(run.results.folder, KIND, overwrite=options.overwrite),
        predictor=Predictor(model, device=options.device),
        model_sha256=run.model,
        view=options.view,
        memory=options.memory,
        overwrite=options.overwrite,
    )
    for number in zarr:
        image, name = run.images[number], run.names[number]
        place = work.results.place(name)
        try:
            record, skipped = yield from work.segment(image, name)
        except OSError as error:
            if error.errno in _FULL:
                raise _full(place, error) from error
            yield _failed(image, error)
        # Whatever is wrong with an image must stop no other one.
        except Exception as error:
            yield _failed(image, first_line(error))
        else:
            yield ImageDone(image, place, record.size, record.areas, skipped)


def _workers(model: DeepCRF, options: BatchOptions) -> AbstractContextManager[Workers]:
    if options.scheduler is None:
        return local_worker(model, options)
    from napari_deepcrf.batch.cluster import cluster_workers

    return cluster_workers(options.scheduler, model, options)


def _keep_images(images: Sequence[Path], names: Sequence[str], results: ResultFolder) -> None:
    """Raise ValueError where a result's place is that of an image."""
    sources = {image.resolve() for image in images}
    for image, name in zip(images, names, strict=True):
        kind = KIND if is_zarr(image) else results.kind
        place = results.folder / f"{name}{kind.suffix}"
        if place.resolve() in sources:
            raise ValueError(f"out: {results.folder} would overwrite the image {place}")


def _failed(image: Path, error: OSError | str) -> ImageFailed:
    """A failure whose reason begins with the image's path."""
    if isinstance(error, OSError) and error.strerror:
        where = "" if error.filename in (None, str(image)) else f"{error.filename}: "
        reason = f"{where}{error.strerror}"
    else:
        reason = error if isinstance(error, str) else first_line(error)
    return ImageFailed(image, reason if reason.startswith(f"{image}: ") else f"{image}: {reason}")


def _full(place: Path, error: OSError) -> OSError:
    return OSError(
        f"{place}: {error.strerror}; what is finished is kept, the same command goes on from there"
    )


class _Run:
    """The state of one run: what each number stands for."""

    def __init__(
        self, images: Sequence[Path], names: Sequence[str], results: ResultFolder, model: str
    ) -> None:
        self.images, self.names = images, names
        self.results, self.model = results, model
        self._hashes: dict[int, str] = {}

    def begin(self, number: int) -> Task | ImageDone | ImageFailed:
        """Read an image: a task, unless it is done already or must not or cannot be done."""
        image, name = self.images[number], self.names[number]
        try:
            content = image.read_bytes()
            sha256 = hashlib.sha256(content).hexdigest()
            record = self.results.finished(name, sha256, self.model)
            if record is not None:
                place = self.results.place(name)
                return ImageDone(image, place, record.size, record.areas, skipped=True)
            self.results.check_free(name, image, sha256)
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
        image, name = self.images[task.number], self.names[task.number]
        sha256 = self._hashes.pop(task.number)
        if isinstance(outcome, Rejected):
            return _failed(image, outcome.reason)
        record = Record(
            image=str(image.resolve()),
            image_sha256=sha256,
            model_sha256=self.model,
            size=outcome.size,
            areas=outcome.areas,
            sha256=digest(outcome.files),
            replaces=self.results.present(name),
        )
        place = self.results.place(name)
        try:
            self.results.write(name, outcome.files, record)
        except OSError as error:
            if error.errno in _FULL:
                raise _full(place, error) from error
            return _failed(image, error)
        return ImageDone(image, place, outcome.size, outcome.areas, worker=outcome.worker)
