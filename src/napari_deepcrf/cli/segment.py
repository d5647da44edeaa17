"""`napari-deepcrf segment`."""

import json
import sys
import time
from collections.abc import Iterable
from contextlib import closing
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_deepcrf.cli.options import Device, Json, Model, Out, progress_bar

if TYPE_CHECKING:
    from napari_deepcrf.batch.run import BatchEvent, BatchOptions, ImageDone, ImageFailed
    from napari_deepcrf.batch.segmenter import WorkerInfo
    from napari_deepcrf.batch.zarr_images import TilesDone

TELL_SECONDS = 30
"""How often a run without a progress bar says how far it is."""


class ResultFormat(StrEnum):
    """How labels are stored."""

    png = "png"
    numpy = "numpy"
    ome_zarr = "ome-zarr"
    coco_rle = "coco-rle"


def segment(
    images: Annotated[
        list[Path], typer.Argument(help="Image files, folders of them, and .zarr images.")
    ],
    out: Out,
    model: Model = "voc-compact",
    result_format: Annotated[
        ResultFormat, typer.Option("--format", help="png has VOC's colours as its palette.")
    ] = ResultFormat.png,
    scheduler: Annotated[
        str | None, typer.Option(help="A Dask scheduler, tcp://HOST:PORT, to work on its workers.")
    ] = None,
    memory: Annotated[
        str | None,
        typer.Option(help="Limit, such as 2GB, for each process; by default half of what is free."),
    ] = None,
    view: Annotated[
        int, typer.Option(help="Pixels of a .zarr image that the network sees side by side.")
    ] = 1024,
    overwrite: Annotated[
        bool, typer.Option(help="Replace files in OUT that are no results, or edited ones.")
    ] = False,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Write the labels of every image into OUT, and a table of class areas, summary.csv.

    The same command again goes on where it stopped: results of the same image bytes, model and
    parameters are kept. An image that cannot be used stops nothing: it is named at the end and
    the exit code is 2.

    A folder NAME.zarr is one image of any size, an OME-Zarr image or a Zarr array: it is done in
    tiles that keep within the memory, its labels are OME-Zarr whatever the format, and a run that
    was stopped goes on from its finished tiles.
    """
    from napari_deepcrf.batch.images import find_images
    from napari_deepcrf.batch.run import BatchOptions, segment_files
    from napari_deepcrf.inference.memory import parse_memory
    from napari_deepcrf.models import DeepCRF

    found = find_images(images)
    options = BatchOptions(
        kind=result_format.value,
        device=device,
        memory=None if memory is None else parse_memory(memory),
        scheduler=scheduler,
        overwrite=overwrite,
        view=view,
    )
    deepcrf = DeepCRF.load(model)
    _tell_memory(found, len(deepcrf.class_names), options)
    report = _Report(as_json=as_json)
    try:
        with closing(segment_files(found, out, deepcrf, options)) as events:
            _follow(events, report, len(found))
    finally:  # a run cut short by a full disk or Ctrl+C has results and failures to tell of, too
        report.finish()
    if report.failed:
        raise typer.Exit(2)


def _follow(events: Iterable["BatchEvent"], report: "_Report", total: int) -> None:
    """Take note of events as they come, and show how far the run is."""
    with progress_bar() as progress:
        task = progress.add_task("Segmenting", total=total)
        for event in events:
            report.add(event)
            progress.update(task, completed=report.count, description=report.doing)
            if progress.disable:
                report.tell_progress(total, progress.tasks[task].time_remaining)


def _tell_memory(images: list[Path], classes: int, options: "BatchOptions") -> None:
    """What the largest image file takes, before any work; Zarr images tell of their tiles."""
    from napari_deepcrf.batch.images import largest_size
    from napari_deepcrf.inference.memory import available, fits, image_bytes, resident

    size, limit = largest_size(images), options.memory
    if size is None:
        return
    tiles = "" if fits(size, classes, limit=limit) else "; it is done in tiles"
    if limit is not None:
        room = f" beside the process's {resident() / 1e9:.2f} GB, of {limit / 1e9:.2f} GB{tiles}"
    elif options.scheduler is None:
        room = f", of {available() / 1e9:.2f} GB, half of what is free{tiles}"
    else:  # what is free there is not known here
        room = " on a worker"
    print(
        f"memory: the largest image, {size[0]}×{size[1]} pixels, takes about "
        f"{image_bytes(size, classes) / 1e9:.2f} GB as a whole{room}",
        file=sys.stderr,
    )


class _Report:
    """Collects what happened to the images, and prints it."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._summary: Path | None = None
        self._workers: set[str] = set()
        self._planned: set[Path] = set()
        self._told = time.monotonic()
        self.doing = "Segmenting"
        """What is done now, for a progress bar."""
        self.done: list[ImageDone] = []
        self.failed: list[ImageFailed] = []

    @property
    def count(self) -> int:
        """Images that need no more work."""
        return len(self.done) + len(self.failed)

    def add(self, event: "BatchEvent") -> None:
        """Take note of an event; tell of a new result, and of a worker's first one."""
        from napari_deepcrf.batch.run import ImageDone, ImageFailed
        from napari_deepcrf.batch.zarr_images import TilesDone

        if isinstance(event, TilesDone):
            self._tell_plan(event)
            self.doing = f"{event.image.name}: {event.done} of {event.total} tiles"
            return
        self.doing = "Segmenting"
        if isinstance(event, ImageFailed):
            self.failed.append(event)
        elif isinstance(event, ImageDone):
            self.done.append(event)
            if event.worker is not None and event.worker.address not in self._workers:
                self._workers.add(event.worker.address)
                print(_describe_worker(event.worker), file=sys.stderr)
            if not self._as_json and not event.skipped:
                shares = ", ".join(f"{name} {share:.1%}" for name, share in _shares(event).items())
                print(f"{event.result}: {shares}")
        else:
            self._summary = event.path

    def tell_progress(self, total: int, seconds_left: float | None) -> None:
        """A line now and then on stderr, where no bar can be shown."""
        if time.monotonic() - self._told > TELL_SECONDS:
            self._told = time.monotonic()
            left = "" if seconds_left is None else f", {timedelta(seconds=int(seconds_left))} left"
            what = "" if self.doing == "Segmenting" else f"; {self.doing}"
            print(f"{self.count} of {total} images{left}{what}", file=sys.stderr)

    def _tell_plan(self, event: "TilesDone") -> None:
        """What an image in tiles takes, once and before any work."""
        if event.image not in self._planned:
            self._planned.add(event.image)
            print(f"memory: {event.image}: {event.plan}", file=sys.stderr)

    def finish(self) -> None:
        """Print the whole as JSON, or a line of numbers; name the failures."""
        skipped = sum(done.skipped for done in self.done)
        if self._as_json:
            print(json.dumps(self._document(), indent=2))
        elif skipped or self.count > 1:
            table = "" if self._summary is None else f"; class areas: {self._summary}"
            print(
                f"{len(self.done) - skipped} done, {skipped} done before, "
                f"{len(self.failed)} failed{table}"
            )
        for failure in self.failed:
            print(f"error: {failure.reason}", file=sys.stderr)

    def _document(self) -> dict[str, Any]:
        return {
            "done": [
                {
                    "image": str(done.image),
                    "labels": str(done.result),
                    "classes": _shares(done),
                    "skipped": done.skipped,
                }
                for done in self.done
            ],
            "failed": [
                {"image": str(failure.image), "error": failure.reason} for failure in self.failed
            ],
            "summary": None if self._summary is None else str(self._summary),
        }


def _shares(done: "ImageDone") -> dict[str, float]:
    """The share of every class that covers at least 0.5 % of the pixels, largest first."""
    pixels = done.size[0] * done.size[1]
    shares = sorted(
        ((name, area / pixels) for name, area in done.areas.items()), key=lambda item: -item[1]
    )
    return {name: round(share, 4) for name, share in shares if share >= 0.005}


def _describe_worker(worker: "WorkerInfo") -> str:
    limit = "" if worker.memory_limit is None else f" of {worker.memory_limit / 2**30:.1f}"
    memory = f"{worker.memory / 2**30:.1f}{limit} GiB of memory in use"
    return f"worker {worker.address}: {worker.device}; {memory}"
