"""Runs on Dask workers: threads of this process for what is quick, processes for what may die."""

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from distributed import Client, LocalCluster, get_worker
from PIL import Image

from napari_deepcrf.batch import cluster as cluster_module
from napari_deepcrf.batch.run import (
    BatchOptions,
    ImageDone,
    SummaryWritten,
    segment_files,
)
from napari_deepcrf.inference import Predictor
from napari_deepcrf.models import DeepCRF

BIN = Path(sys.executable).parent
ROOT = Path(__file__).parents[2]
DOCS, README = ROOT / "docs" / "cluster.md", ROOT / "README.md"


@pytest.fixture
def threads():
    """A scheduler and two workers of three threads each, in this process."""
    before = torch.get_num_threads()
    with LocalCluster(
        n_workers=2, threads_per_worker=3, processes=False, dashboard_address=":0"
    ) as cluster:
        yield cluster
    torch.set_num_threads(before)


def test_workers_write_what_this_process_would(
    threads, run, photos, write_image, files_in, tmp_path, monkeypatch
):
    loaded = []
    load = DeepCRF.load
    monkeypatch.setattr(DeepCRF, "load", lambda path: loaded.append(path) or load(path))
    photos += [write_image(tmp_path / "more" / f"{n}.png", n) for n in range(4, 12)]
    (tmp_path / "bad.png").write_bytes(b"no image")
    images = [*photos[:3], tmp_path / "bad.png", *photos[3:]]
    address = threads.scheduler_address
    done, failed = run(images, tmp_path / "cluster", scheduler=address)
    assert sorted(event.image for event in done) == sorted(photos)
    assert [event.image for event in failed] == [tmp_path / "bad.png"]
    here, _ = run(photos, tmp_path / "here")
    assert not any(event.worker for event in here)
    assert files_in(tmp_path / "cluster") == files_in(tmp_path / "here")
    # the model was loaded once by each worker, and is gone from both
    workers = {event.worker.address: event.worker for event in done}
    assert len(loaded) == len(workers) == 2
    for worker in workers.values():
        assert worker.device.startswith("CPU, 3 threads")
        assert worker.memory > 0
        assert worker.memory_limit is None or worker.memory_limit > 0
    with Client(address, set_as_default=False) as client:
        plugins = client.run(lambda dask_worker: list(dask_worker.plugins)).values()
    assert not [name for names in plugins for name in names if "deepcrf" in name]


def test_a_worker_takes_one_image_at_a_time(threads, run, photos, tmp_path, monkeypatch):
    busy: Counter[int] = Counter()
    most: Counter[int] = Counter()
    lock, labels = threading.Lock(), Predictor.labels

    def count(self, image, **options):
        with lock:
            busy[id(self)] += 1
            most[id(self)] = max(most[id(self)], busy[id(self)])
        time.sleep(0.02)
        try:
            return labels(self, image, **options)
        finally:
            with lock:
                busy[id(self)] -= 1

    monkeypatch.setattr(Predictor, "labels", count)
    done, _ = run(photos, tmp_path / "out", scheduler=threads.scheduler_address)
    assert len(done) == 4
    assert set(most.values()) == {1}


def test_a_lost_scheduler_is_one_line_and_keeps_results(
    threads, run, model, photos, files_in, tmp_path, monkeypatch, capfd
):
    out = tmp_path / "out"
    monkeypatch.setattr(cluster_module, "TASKS_PER_WORKER", 1)
    address = threads.scheduler_address
    events = segment_files(photos, out, model, BatchOptions(scheduler=address))
    next(events)
    threads.close()
    capfd.readouterr()
    with pytest.raises(ConnectionError, match=f"^scheduler: lost {address}; what is finished"):
        list(events)
    assert capfd.readouterr().err == ""
    finished = {name for name in files_in(out) if name.endswith(".png")}
    assert 1 <= len(finished) < 4
    done, _ = run(photos, out)
    assert sum(event.skipped for event in done) == len(finished)
    assert len(done) == 4


def test_a_scheduler_without_workers_is_not_waited_for_for_ever(run, photos, tmp_path, monkeypatch):
    monkeypatch.setattr(cluster_module, "PATIENCE_SECONDS", 0.5)
    with (
        LocalCluster(n_workers=0, processes=False, dashboard_address=":0") as cluster,
        pytest.raises(ConnectionError, match=r"has had no worker for 0\.5 s"),
    ):
        run(photos, tmp_path / "out", scheduler=cluster.scheduler_address)


def test_workers_with_other_software_are_told_of(threads, run, photos, tmp_path, monkeypatch):
    async def setup(self, worker):
        raise ModuleNotFoundError("No module named 'torch'")

    monkeypatch.setattr(cluster_module.ModelPlugin, "setup", setup)
    with pytest.raises(ConnectionError, match=r"cannot take the model \(No module named 'torch'\)"):
        run(photos, tmp_path / "out", scheduler=threads.scheduler_address)


def test_an_image_that_kills_four_workers_fails_and_the_others_go_on(
    run, photos, tmp_path, monkeypatch
):
    segment, killed = cluster_module.ModelPlugin.segment, []

    def kill(self, task):
        if task.image != str(photos[1]):
            return segment(self, task)
        worker = get_worker()
        killed.append(worker.address)
        # What the scheduler sees of a process that is gone.
        worker.loop.add_callback(worker.batched_stream.comm.abort)
        time.sleep(0.5)
        return None

    monkeypatch.setattr(cluster_module.ModelPlugin, "segment", kill)
    monkeypatch.setattr(torch, "set_num_threads", lambda threads: None)
    with LocalCluster(
        n_workers=6, threads_per_worker=1, processes=False, dashboard_address=":0"
    ) as workers:
        done, (failure,) = run(photos, tmp_path / "out", scheduler=workers.scheduler_address)
    assert len(set(killed)) == len(killed) == 4
    assert failure.image == photos[1]
    assert "4 different workers, but all those workers died" in failure.reason
    assert "\n" not in failure.reason
    assert sorted(event.image for event in done) == [photos[0], *photos[2:]]


class Processes:
    """Commands that run beside the test, and end with it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._running: list[subprocess.Popen[bytes]] = []

    def start(self, *command: object) -> subprocess.Popen[bytes]:
        log = (self.folder / f"{len(self._running)}.log").open("wb")
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        with log:
            process = subprocess.Popen(
                [str(part) for part in command],
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                cwd=self.folder,
            )
        self._running.append(process)
        return process

    def worker(self, address: str) -> subprocess.Popen[bytes]:
        return self.start(
            BIN / "dask", "worker", address, "--nthreads", 1, "--no-nanny", "--no-dashboard"
        )

    def end(self) -> None:
        for process in reversed(self._running):
            process.terminate()
        for process in self._running:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@pytest.fixture
def processes(tmp_path: Path):
    folder = tmp_path / "processes"
    folder.mkdir()
    running = Processes(folder)
    yield running
    running.end()


def _wait_for(condition, what: str, seconds: float = 90):
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, f"waited {seconds} s for {what}"
        time.sleep(0.1)
    return found


@pytest.fixture
def many_photos(tmp_path: Path) -> list[Path]:
    """200 image files of different sizes and kinds."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "many"
    folder.mkdir()
    paths = []
    for n in range(200):
        height, width = rng.integers(17, 60, 2)
        pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        path = folder / f"{n:03}{('.png', '.jpg', '.tif')[n % 3]}"
        Image.fromarray(pixels).convert(("RGB", "L")[n % 2]).save(path)
        paths.append(path)
    return paths


@pytest.mark.slow
def test_a_worker_that_dies_and_one_that_joins_late(
    processes, run, model, many_photos, files_in, tmp_path
):
    """200 images, each with one result, equal to a single process's."""
    file = tmp_path / "scheduler.json"
    processes.start(
        *(BIN / "dask", "scheduler", "--host", "127.0.0.1", "--port", 0, "--no-dashboard"),
        *("--scheduler-file", file),
    )
    _wait_for(file.exists, "the scheduler")
    address = _wait_for(lambda: json.loads(file.read_text() or "{}"), "its address")["address"]
    first = {worker.pid: worker for worker in (processes.worker(address) for _ in range(2))}
    with Client(address, set_as_default=False) as client:
        client.wait_for_workers(2, timeout=90)
        pids = client.run(os.getpid)
        out = tmp_path / "cluster"
        done: list[ImageDone] = []
        victim = late = None
        for event in segment_files(many_photos, out, model, BatchOptions(scheduler=address)):
            if isinstance(event, SummaryWritten):
                continue
            assert isinstance(event, ImageDone), event
            done.append(event)
            seen = {e.worker.address for e in done}
            if victim is None and len(done) >= 40 and len(seen) == 2:
                victim = event.worker.address
                os.kill(pids[victim], signal.SIGKILL)
                late = processes.worker(address)
            if late is not None and len(done) == 120:
                # The second half waits for the newcomer, however slow the machine starts it.
                client.wait_for_workers(2, timeout=90)
        assert first[pids[victim]].wait(10) == -signal.SIGKILL
        names = client.run(os.getpid)
    (newcomer,) = (name for name, pid in names.items() if pid == late.pid)
    by_worker = Counter(event.worker.address for event in done)
    assert set(by_worker) == {*pids, newcomer}
    assert sorted(event.image for event in done) == many_photos
    assert not any(event.skipped for event in done)
    run(many_photos, tmp_path / "here")
    assert len(files_in(out)) == 201
    assert files_in(out) == files_in(tmp_path / "here")


@pytest.mark.slow
def test_the_commands_of_the_docs(processes, photos):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    (block,), (same,) = (
        re.findall(r"^(dask scheduler.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)
        for page in (DOCS, README)
    )
    assert same == block
    scheduler, worker, segment = (
        shlex.split(line.replace("8786", str(port)), comments=True)
        for line in block.strip().splitlines()
    )
    (processes.folder / "photos").symlink_to(photos[0].parent)
    for command in (scheduler, worker):
        processes.start(BIN / command[0], *command[1:])
    ended = processes.start(BIN / segment[0], *segment[1:])
    assert ended.wait(300) == 0
    results = processes.folder / segment[segment.index("--out") + 1]
    assert sorted(p.name for p in results.glob("*.png")) == [f"{n}.png" for n in range(4)]
