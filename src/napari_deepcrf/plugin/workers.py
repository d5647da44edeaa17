"""Runs the session's jobs in napari workers: one at a time in a lane, the latest one wins."""

from __future__ import annotations

import sys
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Any

from napari.qt.threading import GeneratorWorker, create_worker
from qtpy.QtCore import QObject

from napari_deepcrf.interrupt import Interrupted, interruptible
from napari_deepcrf.plugin.qt import Signal
from napari_deepcrf.session.events import Event, Job

LANES = dict.fromkeys(("segment", "refine", "region", "measure", "features", "live"), "crf")
"""Kinds that share cached scores and lattices, and so must not run beside each other."""
SWITCH_INTERVAL_S = 0.001
"""How long a worker's Python code keeps the interpreter from the window that asks for it.

To add a layer, or to paint, asks tens of times, as calls of Qt and OpenGL let go of it: the usual
5 ms make the window twice as slow beside a worker.
"""


def _awaits(job: Job, running: Job) -> bool:
    """Whether a job lets the running one of its lane come to its end.

    Features are computed ahead, when nothing else is wanted; a stroke needs just these.
    """
    return job.kind == "features" or (job.kind == "live" and running.kind == "features")


@dataclass(frozen=True)
class _Failure:
    """A job's last word. It is yielded, as napari's workers end on a RuntimeError in silence, and
    with PySide6 on no error at all: what napari connects to their signal takes no argument there.
    """

    text: str


class _Worker(GeneratorWorker[Any, Any, Any]):  # type: ignore[misc]
    """A worker that, told to quit, ends what its generator began, in its own thread."""

    held = False

    def hold(self, held: bool) -> None:
        """Pause after the present step, or go on: also if that step has not come to its end."""
        # superqt's `resume` does nothing before the worker has paused
        self.held, self._pause_requested, self._resume_requested = held, held, not held

    def work(self) -> Any:
        try:
            return super().work()
        finally:
            self._gen.close()


class Runner(QObject):
    """Starts jobs off the GUI thread and relays their events to it.

    A job of a busy lane waits until the running one has stopped, at its next event or checkpoint,
    or has ended, if the job can use what it makes; only the latest waiting job is kept.
    """

    started = Signal(object)  # Job
    delivered = Signal(object, object)  # Job, Event
    failed = Signal(object, str)  # Job, one line
    ended = Signal(object)  # Job: done, cancelled or failed

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._running: dict[str, tuple[Job, _Worker]] = {}
        self._waiting: dict[str, Job] = {}
        self._closed = False
        self._interval = sys.getswitchinterval()
        sys.setswitchinterval(min(self._interval, SWITCH_INTERVAL_S))

    @property
    def jobs(self) -> tuple[Job, ...]:
        """Jobs in workers now."""
        return tuple(job for job, _ in self._running.values())

    def is_busy(self, *kinds: str, quiet: bool = True) -> bool:
        """Whether anything runs or waits; with kinds, whether one of these does.

        Without `quiet`, jobs that nothing waits for do not count.
        """
        busy = [*self.jobs, *self._waiting.values()]
        return any((not kinds or job.kind in kinds) and (quiet or not job.quiet) for job in busy)

    def submit(self, job: Job) -> None:
        """Run a job, after the one of its lane has been asked to stop."""
        if self._closed:
            return
        lane = LANES.get(job.kind, job.kind)
        if lane not in self._running:
            self._start(lane, job)
            return
        self._waiting[lane] = job
        if not _awaits(job, self._running[lane][0]):
            self._stop(*self._running[lane])

    def cancel(self, kind: str | None = None) -> None:
        """Ask jobs (of one kind) to stop and drop waiting ones."""
        for lane, job in list(self._waiting.items()):
            if kind in (None, job.kind):
                del self._waiting[lane]
        for job, worker in self._running.values():
            if kind in (None, job.kind):
                self._stop(job, worker)

    def toggle_pause(self, kind: str) -> bool:
        """Pause or resume the job of a kind; returns whether it is to be paused now."""
        for job, worker in self._running.values():
            if job.kind == kind:
                worker.hold(not worker.held)
                return bool(worker.held)
        return False

    def close(self) -> None:
        """Stop everything; nothing is relayed afterwards."""
        self._closed = True
        self.cancel()
        sys.setswitchinterval(self._interval)

    @staticmethod
    def _stop(job: Job, worker: _Worker) -> None:
        job.cancelled.set()
        worker.quit()

    def _start(self, lane: str, job: Job) -> None:
        def iterate() -> Iterator[Event]:
            steps = job.steps()
            event: Event = None
            try:
                while not isinstance(event, _Failure):
                    with interruptible(job.cancelled):  # not around the yield: threads are shared
                        try:
                            event = next(steps)
                        except (StopIteration, Interrupted):
                            return
                        except Exception as error:
                            text = str(error).strip() or type(error).__name__
                            event = _Failure(text.splitlines()[0])
                    yield event
            finally:
                if isinstance(steps, Generator):
                    steps.close()

        worker = create_worker(
            iterate, _start_thread=False, _ignore_errors=True, _worker_class=_Worker
        )
        self._running[lane] = (job, worker)
        worker.yielded.connect(lambda event: self._relay(job, event))
        worker.finished.connect(lambda: self._on_finished(lane))
        self.started.emit(job)  # first: napari's activity dock lets events in
        worker.start()

    def _relay(self, job: Job, event: Event) -> None:
        if self._closed:
            return
        if isinstance(event, _Failure):
            self.failed.emit(job, event.text)
        else:
            self.delivered.emit(job, event)

    def _on_finished(self, lane: str) -> None:
        job, _ = self._running.pop(lane)
        if self._closed:
            return
        self.ended.emit(job)
        waiting = self._waiting.pop(lane, None)
        if waiting is not None:
            self._start(lane, waiting)
