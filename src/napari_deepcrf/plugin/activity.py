"""What runs, shown in the dock's status panel and in napari's activity dock."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject

from napari_deepcrf.session import Job, Progress

if TYPE_CHECKING:
    from napari.utils import progress as ProgressBar

    from napari_deepcrf.plugin.panels.status_panel import StatusPanel
    from napari_deepcrf.plugin.workers import Runner

LONG = ("warm-up", "model", "segment", "train", "batch", "tiles")
"""Kinds of jobs worth a bar in napari's activity dock."""


class Activity(QObject):
    """Follows the runner; quiet jobs are not shown."""

    def __init__(self, runner: Runner, panel: StatusPanel, parent: QObject) -> None:
        super().__init__(parent)
        self._runner, self._panel = runner, panel
        self._bars: dict[str, ProgressBar] = {}
        self._failure = ""
        self._cancelled = self._moving = False
        runner.started.connect(self._on_started)
        runner.delivered.connect(self._on_event)
        runner.failed.connect(self._on_failed)
        runner.ended.connect(self._on_ended)

    def cancel(self) -> None:
        """Ask every job to stop and say so until they have."""
        if self._runner.is_busy(quiet=False):
            self._cancelled = True
            self._panel.show_cancelling()
            self._runner.cancel()

    def close(self) -> None:
        """Take the bars away."""
        for bar in self._bars.values():
            bar.close()
        self._bars.clear()

    def _on_started(self, job: Job) -> None:
        if job.quiet:
            return
        self._panel.show_progress(job.title, 0, 0)
        if job.kind in LONG:
            from napari.utils import progress

            self._bars[job.kind] = progress(total=0, desc=job.title)

    def _on_event(self, job: Job, event: Any) -> None:
        progress = _progress(event)
        if job.quiet or self._cancelled or progress is None:
            return
        self._panel.show_progress(progress.text, progress.done, progress.total)
        bar = self._bars.get(job.kind)
        if bar is not None and progress.total and not self._moving:
            self._moving = True  # moving it lets events in: those that come meanwhile would nest
            bar.total = progress.total
            bar.update(progress.done - bar.n)  # setting `n` tells nobody
            self._moving = False

    def _on_failed(self, job: Job, message: str) -> None:
        self._failure = message

    def _on_ended(self, job: Job) -> None:
        bar = self._bars.pop(job.kind, None)
        if bar is not None:
            bar.close()
        failure, self._failure = self._failure, ""
        if failure:
            self._panel.show_error(failure)
        elif not job.quiet and not self._runner.is_busy(quiet=False):
            self._panel.show_idle("Cancelled" if self._cancelled else "Ready")
        if not self._runner.is_busy(quiet=False):
            self._cancelled = False


def _progress(event: Any) -> Progress | None:
    """How far a job is by an event; a training's step is told by its name, as for its panel."""
    if isinstance(event, Progress):
        return event
    if type(event).__name__ == "StepDone":
        return Progress(f"Training, {event.stage} stage", event.step, event.iterations)
    return None
