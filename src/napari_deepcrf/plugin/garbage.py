"""Garbage collections that the window does not feel: they pass over what lasts anyway.

PyTorch, Numba and napari make more than half a million objects. A full collection looks through
all of them in some 0.2 s, and holds the interpreter lock, whichever thread it falls to; imports
set off several, and napari asks for one whenever a layer is removed.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from qtpy.QtCore import QObject

from napari_deepcrf.plugin.context import follow
from napari_deepcrf.plugin.qt import single_shot

if TYPE_CHECKING:
    from napari.layers import Layer
    from napari.viewer import Viewer

    from napari_deepcrf.plugin.workers import Runner
    from napari_deepcrf.session import Job

LOADING = ("warm-up", "kernels")
"""Kinds of jobs that load libraries."""
MANY_OBJECTS = 30_000
"""A full collection looks through so many in some 20 ms."""
REJOIN_AFTER_MS = 1500
"""How long after a layer was removed: then none is being removed any more."""


@contextmanager
def loading_what_lasts() -> Iterator[None]:
    """Collect nothing meanwhile, and pass over all that is alive at the end from then on."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        set_apart()
        if enabled:
            gc.enable()


def set_apart(*, collect: bool = False) -> None:
    """Let collections pass over what is there now, after a last one if asked to ``collect``."""
    if collect:
        gc.collect()
    gc.freeze()


def join_again() -> None:
    """Let collections look through everything again."""
    gc.unfreeze()


class LastingObjects(QObject):
    """Sees to it that what was set apart is freed nevertheless when it is done with.

    Set apart are the libraries, with the layers that were open when they were loaded and the viewer
    itself, and the layers of a first result: visuals and controls of one are some 10,000 objects.
    When such a layer is removed all join the rest, once, a moment later, and are set apart anew:
    0.3 s in which the window stands still. The layers that we remove ourselves do not cause that:
    none is set apart while a comparison, which soon goes, is there, and the small layer of a
    visible part waits for the next time. When the dock is closed all join for good.
    """

    def __init__(self, viewer: Viewer, runner: Runner, cleanup: ExitStack, parent: QObject) -> None:
        super().__init__(parent)
        self._viewer = viewer
        self._layers: WeakSet[Layer] = WeakSet()
        self._later = single_shot(self, REJOIN_AFTER_MS, self._rejoin)
        runner.ended.connect(self._on_ended)
        follow(cleanup, self._on_removed, viewer.layers.events.removed)
        cleanup.callback(join_again)
        cleanup.callback(self._later.stop)

    def _on_ended(self, job: Job) -> None:
        if job.kind in LOADING:
            self._layers.update(self._viewer.layers)
        elif job.kind == "measure":  # a result is shown, and nothing else is wanted now
            comparing = any(_role(layer) == "comparison" for layer in self._viewer.layers)
            if not comparing and len(gc.get_objects()) > MANY_OBJECTS:
                self._set_apart()

    def _on_removed(self, event: Any) -> None:
        if event.value in self._layers:
            self._later.start()

    def _rejoin(self) -> None:
        join_again()
        self._set_apart()

    def _set_apart(self) -> None:
        set_apart(collect=True)  # afterwards nobody would look at garbage any more
        self._layers = WeakSet(x for x in self._viewer.layers if _role(x) != "region")


def _role(layer: Layer) -> object:
    """What a layer of ours is, as `label_layer` writes it."""
    return layer.metadata.get("deepcrf")
