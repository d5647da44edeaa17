"""The workers of a Dask cluster, each with the model, one image at a time.

An image's bytes travel with its task, by way of the scheduler, which hands the task to another
worker when one dies; the result's files travel back. No shared disk is needed, and only the
client writes. The model's checkpoint travels to each worker once, to those that join late, too.
"""

from __future__ import annotations

import logging
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from queue import Empty, Queue

import dask
import torch
from dask.typing import Key
from distributed import Client, Future, Worker, WorkerPlugin, get_worker
from distributed.client import ClosedClientError
from distributed.comm.addressing import get_address_host_port

from napari_deepcrf.batch.segmenter import (
    Labelled,
    Outcome,
    Rejected,
    Segmenter,
    Task,
    WorkerInfo,
    Workers,
    WorkSettings,
)
from napari_deepcrf.device import describe_devices
from napari_deepcrf.inference.memory import resident
from napari_deepcrf.messages import first_line
from napari_deepcrf.models import DeepCRF

SLOT = "napari-deepcrf-image"
"""The Dask resource of which every worker has one and every task takes one."""
CONNECT_SECONDS = 10
PATIENCE_SECONDS = 60
"""How long a run waits for a worker to be there before it gives up."""
TASKS_PER_WORKER = 2
"""Images under way for each worker: one at work, the next one already there."""


class ModelPlugin(WorkerPlugin):
    """Gives a worker the model's checkpoint; the first image loads it."""

    def __init__(self, checkpoint: bytes, settings: WorkSettings) -> None:
        self._checkpoint, self._settings = checkpoint, settings

    async def setup(self, worker: Worker) -> None:
        """Let the worker take one image at a time, however many threads it has."""
        self._worker = worker
        self._loading = threading.Lock()
        self._segmenter: Segmenter | None = None
        await worker.set_resources(**{SLOT: 1})

    def segment(self, task: Task) -> Outcome:
        """Segment an image with as many threads as the worker was given."""
        torch.set_num_threads(self._worker.state.nthreads)
        outcome = self._ready()(task)
        return replace(outcome, worker=self._info()) if isinstance(outcome, Labelled) else outcome

    def _ready(self) -> Segmenter:
        with self._loading:
            if self._segmenter is None:
                with tempfile.TemporaryDirectory() as folder:
                    path = Path(folder) / "model.safetensors"
                    path.write_bytes(self._checkpoint)
                    model = DeepCRF.load(path)
                self._segmenter = Segmenter(model, self._settings)
            return self._segmenter

    def _info(self) -> WorkerInfo:
        device = self._ready().predictor.device
        described = {found.name: found.description for found in describe_devices()}
        return WorkerInfo(
            address=self._worker.address,
            device=described.get(str(device), str(device)),
            memory=resident(),
            memory_limit=self._worker.memory_manager.memory_limit,
        )


def _segment(plugin: str, task: Task) -> Outcome:
    """What a task runs on a worker."""
    found = get_worker().plugins[plugin]
    assert isinstance(found, ModelPlugin)
    return found.segment(task)


class ClusterWorkers:
    """The workers of a cluster as one: tasks go to whichever is free."""

    def __init__(self, client: Client, plugin: str, address: str) -> None:
        self._client, self._plugin, self._address = client, plugin, address
        self._ended: Queue[Future[Outcome]] = Queue()
        self._tasks: dict[Key, tuple[Task, Future[Outcome]]] = {}
        self._count, self._counted = 0, float("-inf")
        self._alone_since: float | None = None

    def submit(self, task: Task) -> None:
        """Send an image to the scheduler, which keeps it until it is done."""
        # Dask warns of large graphs; here the image is meant to travel with its task.
        with dask.config.set({"distributed.admin.large-graph-warning-threshold": "1 TiB"}):
            try:
                future = self._client.submit(
                    _segment,
                    self._plugin,
                    task,
                    key=f"{self._plugin}-{task.number}",
                    pure=False,
                    resources={SLOT: 1},
                )
            except ClosedClientError as error:
                raise ConnectionError(self._lost()) from error
        self._tasks[future.key] = (task, future)
        future.add_done_callback(self._ended.put)

    @property
    def full(self) -> bool:
        """Whether every worker has its images; grows as workers join."""
        return len(self._tasks) >= TASKS_PER_WORKER * max(1, self._workers())

    @property
    def pending(self) -> int:
        """Images under way."""
        return len(self._tasks)

    def next(self) -> tuple[Task, Outcome]:
        """Wait for one image; ConnectionError where the scheduler or all workers are lost."""
        while True:
            try:
                future = self._ended.get(timeout=1)
            except Empty:
                self._check_alive()
                continue
            task, _ = self._tasks.pop(future.key)
            return task, self._outcome(future)

    def _outcome(self, future: Future[Outcome]) -> Outcome:
        while True:
            try:
                return future.result(timeout=1)
            except TimeoutError:  # the result died with its worker, and is made again elsewhere
                self._check_alive()
            except CancelledError as error:
                raise ConnectionError(self._lost()) from error
            except Exception as error:
                # Every worker that tried this image died of it, or cannot load the model.
                self._check_alive()
                return Rejected(first_line(error))

    def _workers(self) -> int:
        """The number of workers, asked for at most once a second."""
        now = time.monotonic()
        if now - self._counted > 1:
            try:
                self._count = len(self._client.nthreads())
            except OSError as error:
                raise ConnectionError(self._lost()) from error
            self._counted = now
        return self._count

    def _check_alive(self) -> None:
        """Raise ConnectionError when nothing can be expected any more."""
        if self._client.status != "running":
            raise ConnectionError(self._lost())
        if self._workers():
            self._alone_since = None
            return
        self._alone_since = self._alone_since or time.monotonic()
        if time.monotonic() - self._alone_since > PATIENCE_SECONDS:
            raise ConnectionError(
                f"scheduler: {self._address} has had no worker for {PATIENCE_SECONDS} s; what is "
                "finished is kept"
            )

    def _lost(self) -> str:
        return f"scheduler: lost {self._address}; what is finished is kept"


@contextmanager
def cluster_workers(address: str, model: DeepCRF, settings: WorkSettings) -> Iterator[Workers]:
    """The workers of the scheduler at an address, with the model, until the block ends.

    Raises ConnectionError where the scheduler cannot be reached, or its workers lack the software.
    """
    plugin = f"napari-deepcrf-{uuid.uuid4().hex}"
    with _quiet(), _connected(address) as client:
        try:
            client.register_plugin(ModelPlugin(_checkpoint(model), settings), name=plugin)
        except Exception as error:  # whatever a worker raised
            raise ConnectionError(
                f"scheduler: the workers of {address} cannot take the model ({first_line(error)}); "
                "expected the same napari-deepcrf and distributed there as here"
            ) from error
        try:
            yield ClusterWorkers(client, plugin, address)
        finally:
            if client.status == "running":
                with suppress(OSError):  # a scheduler that goes just now has no plugins left
                    client.unregister_worker_plugin(plugin)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Dask's many reports of a lost connection: one line of ours tells of it."""
    # Dask gives several of its loggers a level of their own.
    loggers = [logging.getLogger(name) for name in logging.root.manager.loggerDict]
    before = {log: log.level for log in loggers if log.name.partition(".")[0] == "distributed"}
    for logger in before:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in before.items():
            logger.setLevel(level)


def _connected(address: str) -> Client:
    try:
        if not address.startswith("inproc://"):
            # A client that cannot read it takes 20 s to close.
            get_address_host_port(address)
        return Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError) as error:
        raise ConnectionError(
            f"scheduler: {address} cannot be reached ({first_line(error)})"
        ) from error


def _checkpoint(model: DeepCRF) -> bytes:
    """The bytes of a model's checkpoint file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        model.save(path)
        return path.read_bytes()
