"""Time `segment --scheduler` with one worker and with two, and model how it grows.

    python benchmarks/cluster.py --out DIR     measures; writes DIR/cluster.json and cluster.md
    python benchmarks/cluster.py --images 8    quicker

A scheduler and workers of one thread each are started on this machine as processes of their own.
First it is checked that a cluster's results are a single process's to the byte. A worker's
seconds for an image come from the run with one worker. What does not grow with workers is measured
by workers that return a result at once: client, scheduler and network then do all they do for an
image, and nothing else is done. The model is

    images/s (n workers) = min(n / worker, 1 / serial, network / bytes)

and its value for two workers stands beside what was measured.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean

import numpy as np
import psutil
import torch
from distributed import Client, get_worker
from PIL import Image
from skimage import data

from napari_deepcrf.batch import cluster
from napari_deepcrf.batch.run import BatchOptions, ImageDone, ImageFailed, segment_files
from napari_deepcrf.batch.segmenter import Labelled, Outcome, Task, WorkerInfo
from napari_deepcrf.models import DeepCRF
from report import publish

HEIGHT, WIDTH = 375, 500
NETWORK = 1e9 / 8
"""Bytes a second of the client's connection that the model assumes: 1 Gbit/s."""
ECHOES = 8
"""Times as many images for workers that return at once."""
WORKERS = (1, 2, 10, 30, 100, 300)
START_SECONDS = 90


@dataclass(frozen=True)
class Timing:
    """One run over all images."""

    workers: int
    images_per_s: float
    client_ms: float
    """The client's processor time for an image."""
    scheduler_ms: float


@dataclass(frozen=True)
class Costs:
    """Seconds, and bytes, of one image."""

    worker: float
    serial: float
    up: float
    down: float

    def rate(self, workers: int) -> float:
        """Images a second with so many workers."""
        return min(workers / self.worker, 1 / self.serial, NETWORK / max(self.up, self.down))


def echo_result(plugin: str, task: Task) -> Outcome:
    """What a worker's task becomes: a label image of the usual size, without any work."""
    return Labelled(
        {"": bytes(2000)}, (HEIGHT, WIDTH), {}, WorkerInfo(get_worker().address, "", 0, None)
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, help="folder for cluster.json and cluster.md")
    parser.add_argument("--images", type=int, default=48, help="photos of 500×375 pixels")
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"  # the workers', so that they take no other core
    torch.set_num_threads(1)  # as the workers, with whose results ours are compared
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        many = photos(folder / "photos", ECHOES * arguments.images)
        images = many[: arguments.images]
        model = DeepCRF.load("voc-compact")
        address, scheduler = stack.enter_context(dask_scheduler(folder))
        timings = []
        for workers in (1, 2):
            stack.enter_context(dask_worker(address, folder))
            wait_for_workers(address, workers)
            # Each worker loads its software and kernels.
            timed(images[: 2 * workers], folder / f"warm-{workers}", model, address, scheduler)
            timings.append(timed(images, folder / f"with-{workers}", model, address, scheduler))
            check(images[:4], folder / f"with-{workers}", model, folder)
        with echoing():
            echo = timed(many, folder / "echo", model, address, scheduler)
        costs = Costs(
            worker=1 / timings[0].images_per_s,
            serial=1 / echo.images_per_s,
            up=mean(image.stat().st_size for image in images),
            down=mean((folder / "with-1" / f"{p.stem}.png").stat().st_size for p in images),
        )
    report = {
        "images": len(images),
        "cores": os.cpu_count(),
        "runs": [asdict(timing) for timing in timings],
        "echo": asdict(echo),
        "costs": asdict(costs),
        "model": {str(n): costs.rate(n) for n in WORKERS},
    }
    publish(arguments.out, "cluster", report, table(timings, echo, costs, len(images)))
    return 0


@contextmanager
def echoing() -> Iterator[None]:
    """Workers that do nothing, and as many images under way as a hundred of them would have."""
    segment, tasks = cluster._segment, cluster.TASKS_PER_WORKER
    cluster._segment, cluster.TASKS_PER_WORKER = echo_result, 50 * tasks
    try:
        yield
    finally:
        cluster._segment, cluster.TASKS_PER_WORKER = segment, tasks


def photos(folder: Path, count: int) -> list[Path]:
    """JPEG files of 500×375 pixels, all different, cut from three photos."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    sources = [data.astronaut(), data.coffee(), data.rocket()]
    paths = []
    for n in range(count):
        source = sources[n % len(sources)]
        top, left = (
            rng.integers(0, a - b + 1)
            for a, b in zip(source.shape[:2], (HEIGHT, WIDTH), strict=True)
        )
        path = folder / f"{n:03}.jpg"
        Image.fromarray(source[top : top + HEIGHT, left : left + WIDTH]).save(path, quality=90)
        paths.append(path)
    return paths


@contextmanager
def command(*words: object, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that ends with the block."""
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [str(Path(sys.executable).parent / "dask"), *map(str, words)],
            stdout=stream,
            stderr=subprocess.STDOUT,
        )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(30)


@contextmanager
def dask_scheduler(folder: Path) -> Iterator[tuple[str, psutil.Process]]:
    """A scheduler's address and process."""
    file = folder / "scheduler.json"
    words = ("--host", "127.0.0.1", "--port", 0, "--no-dashboard", "--scheduler-file", file)
    with command("scheduler", *words, log=folder / "scheduler.log") as process:
        end = time.monotonic() + START_SECONDS
        while not (file.exists() and file.read_text()):
            if time.monotonic() > end:
                raise SystemExit(f"no scheduler after {START_SECONDS} s")
            time.sleep(0.1)
        yield json.loads(file.read_text())["address"], psutil.Process(process.pid)


@contextmanager
def dask_worker(address: str, folder: Path) -> Iterator[None]:
    """A worker of one thread."""
    words = (address, "--nthreads", 1, "--no-nanny", "--no-dashboard", "--local-directory", folder)
    with command("worker", *words, log=folder / f"worker-{time.time_ns()}.log"):
        yield


def wait_for_workers(address: str, count: int) -> None:
    with Client(address, set_as_default=False) as client:
        client.wait_for_workers(count, timeout=START_SECONDS)


def timed(
    images: list[Path], out: Path, model: DeepCRF, address: str, scheduler: psutil.Process
) -> Timing:
    """Run once; the clock starts with the first result, when the model has travelled."""
    events = segment_files(images, out, model, BatchOptions(scheduler=address))
    first = next(events)
    if isinstance(first, ImageFailed):
        raise SystemExit(f"expected a result, got none: {first.reason}")
    used = scheduler.cpu_times()
    start, processor = time.perf_counter(), time.process_time()
    done = [event for event in events if isinstance(event, ImageDone)]
    seconds, processor = time.perf_counter() - start, time.process_time() - processor
    after = scheduler.cpu_times()
    if len(done) != len(images) - 1:
        raise SystemExit(f"expected {len(images)} results, got {len(done) + 1}")
    workers = {event.worker.address for event in done if event.worker is not None}
    scheduling = after.user + after.system - used.user - used.system
    # Every worker's first image was under way before the clock started.
    timed_images = len(images) - len(workers)
    return Timing(
        workers=len(workers),
        images_per_s=timed_images / seconds,
        client_ms=1e3 * processor / len(done),
        scheduler_ms=1e3 * scheduling / len(done),
    )


def check(images: list[Path], out: Path, model: DeepCRF, folder: Path) -> None:
    """Raise SystemExit unless a single process writes the same bytes."""
    here = folder / "here"
    for event in segment_files(images, here, model, BatchOptions()):
        if isinstance(event, ImageDone):
            other = out / event.result.name
            if event.result.read_bytes() != other.read_bytes():
                raise SystemExit(f"{event.image.name}: the cluster's result is another one")


def table(timings: list[Timing], echo: Timing, costs: Costs, images: int) -> str:
    one, two = timings
    lines = [
        f"{images} photos of {WIDTH}×{HEIGHT}, voc-compact, workers of one thread, "
        f"{os.cpu_count()} cores for workers, scheduler and client together.",
        "",
        "| workers | images/s |",
        "|---:|---:|",
        *(f"| {t.workers} | {t.images_per_s:.2f} |" for t in timings),
        f"| {echo.workers} that return at once | {echo.images_per_s:.0f} |",
        "",
        f"Two workers: {two.images_per_s / one.images_per_s:.2f}× one; "
        f"the model says {costs.rate(2) / costs.rate(1):.2f}×.",
        "",
        "| of one image | |",
        "|---|---:|",
        f"| worker | {1e3 * costs.worker:.0f} ms |",
        f"| serial | {1e3 * costs.serial:.1f} ms |",
        f"| of it, processor time of the client | {echo.client_ms:.1f} ms |",
        f"| of it, processor time of the scheduler | {echo.scheduler_ms:.1f} ms |",
        f"| serial share | {costs.serial / (costs.serial + costs.worker):.2%} |",
        f"| to the worker | {costs.up / 1e3:.0f} kB |",
        f"| from the worker | {costs.down / 1e3:.1f} kB |",
        "",
        "| workers | images/s by the model | of linear |",
        "|---:|---:|---:|",
        *(
            f"| {n} | {costs.rate(n):.1f} | {costs.rate(n) * costs.worker / n:.0%} |"
            for n in WORKERS
        ),
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
