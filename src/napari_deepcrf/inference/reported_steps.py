"""Work that calls back with its progress, as a generator that yields it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import TypeVar

from napari_deepcrf.inference.predictor import ProgressCallback
from napari_deepcrf.interrupt import Interrupted, interruptible_elsewhere

_Result = TypeVar("_Result")


def reported_steps(
    work: Callable[[ProgressCallback], _Result],
) -> Generator[tuple[int, int], None, _Result]:
    """Run work in a thread of its own; yields what it reports, returns what it returns.

    What it raises reaches the caller. Closing the generator makes its next report raise
    `Interrupted`, and waits for it to end.
    """
    reports: SimpleQueue[tuple[int, int] | None] = SimpleQueue()
    closed = threading.Event()

    def report(done: int, total: int) -> None:
        if closed.is_set():
            raise Interrupted
        reports.put((done, total))

    def run() -> _Result:
        try:
            return work(report)
        finally:
            reports.put(None)

    with ThreadPoolExecutor(1, thread_name_prefix="steps") as thread:
        future = thread.submit(interruptible_elsewhere(run))
        try:
            while (step := reports.get()) is not None:
                yield step
        finally:
            closed.set()
        return future.result()
