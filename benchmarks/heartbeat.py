"""How long the window stands still: a timer in its thread that ticks every 10 ms."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from qtpy.QtCore import QTimer


class Heartbeat:
    """Longest gap between two ticks while the block runs, in seconds.

    A gap comes from work of the GUI thread, from another thread that keeps the interpreter lock, or
    from other programs: then some thread of ours is ready to run and has no processor, which Linux
    counts. ``worst`` is the longest gap as a user has it. ``fed`` leaves out what our Python
    threads waited for a processor, which is no fault of theirs. ``own`` is the longest work of the
    GUI thread alone between two ticks, on any machine.
    """

    def __enter__(self) -> Heartbeat:
        self.worst = self.fed = self.own = 0.0
        self._used = time.thread_time()
        self._last, self._waited = time.perf_counter(), waiting_times()
        self._timer = QTimer()
        self._timer.setInterval(10)
        self._timer.timeout.connect(self._tick)
        self._timer.start()
        return self

    def _tick(self) -> None:
        now, waited, used = time.perf_counter(), waiting_times(), time.thread_time()
        gap = now - self._last
        # one may wait for the lock of another that waits for a processor: their waits add up
        unfed = sum(waited[t] - self._waited.get(t, 0.0) for t in waited)
        self.worst, self.fed = max(self.worst, gap), max(self.fed, gap - unfed)
        self.own = max(self.own, used - self._used)
        self._last, self._waited, self._used = now, waited, used

    def __exit__(self, *_: object) -> None:
        self._timer.stop()


def waiting_times() -> dict[int, float]:
    """Seconds that each of our Python threads was ready to run and did not; empty but on Linux."""
    times = {}
    for thread in threading.enumerate():
        number = thread.native_id
        try:
            line = Path(f"/proc/self/task/{number}/schedstat").read_text()
        except OSError:
            continue
        if number is not None:
            times[number] = int(line.split()[1]) / 1e9
    return times
