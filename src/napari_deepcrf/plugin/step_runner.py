"""Work of the GUI thread in small pieces, events of the window between them."""

from __future__ import annotations

from collections.abc import Iterator

from qtpy.QtCore import QObject

from napari_deepcrf.plugin.qt import single_shot


class StepRunner(QObject):
    """Advances a generator by one step per turn of the event loop.

    A layer takes napari some 50 ms to add, and more to remove: several in one go would make the
    window stand still.
    """

    def __init__(self, parent: QObject) -> None:
        super().__init__(parent)
        self._steps: Iterator[None] | None = None
        self._timer = single_shot(self, 0, self._advance)

    @property
    def is_waiting(self) -> bool:
        """Whether there are steps left."""
        return self._steps is not None

    def run(self, steps: Iterator[None]) -> None:
        """Begin with these steps in the next turn; those of before are given up."""
        self._steps = steps
        self._timer.start()

    def stop(self) -> None:
        """Give up what is left."""
        self._steps = None
        self._timer.stop()

    def _advance(self) -> None:
        steps = self._steps
        if steps is None:
            return
        try:
            next(steps)
        except StopIteration:
            if self._steps is steps:
                self._steps = None
        else:
            self._timer.start()
