"""What every coordinator of the dock works with, and the one way in which they start jobs."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject

from napari_deepcrf.plugin.images import has_pixels_of
from napari_deepcrf.plugin.palette import class_colours
from napari_deepcrf.plugin.qt import Signal, draw_in_another_turn

if TYPE_CHECKING:
    from napari.layers import Layer
    from napari.viewer import Viewer

    from napari_deepcrf.plugin.image_choice import ImageChoice
    from napari_deepcrf.plugin.palette import RGB
    from napari_deepcrf.plugin.workers import Runner
    from napari_deepcrf.session import Job, Result, Session
    from napari_deepcrf.session.annotations import ClassList


@dataclass(frozen=True, eq=False)
class Context:
    """The dock's shared parts."""

    viewer: Viewer
    session: Session
    runner: Runner
    choice: ImageChoice
    classes: ClassList
    cleanup: ExitStack

    def colours(self, names: tuple[str, ...]) -> tuple[RGB, ...]:
        """Colours of classes, those of the user's list by their names."""
        return class_colours(names, self.classes)

    def is_fresh(self, owner: object, result: Result) -> bool:
        """Whether an image layer's result is what model, scores and settings make of it now."""
        if owner is self.choice.layer:
            return result.identity == self.session.identity
        same_pixels = has_pixels_of(result.identity.image, owner, self.choice.revisions)
        return same_pixels and self.session.would_make(result.identity)


class Coordinator(QObject):
    """Connects one panel with viewer, session and workers.

    What cannot be done is said in one line by ``refused``, never raised into Qt.
    """

    refused = Signal(str)

    def __init__(self, context: Context, parent: QObject) -> None:
        super().__init__(parent)
        self.context = context
        self.viewer, self.session = context.viewer, context.session

    def start(self, make: Callable[[], Job | None]) -> Job | None:
        """Run the job that ``make`` returns, if it returns one."""
        job = self.make(make)
        if job is not None:
            self.context.runner.submit(job)
        return job

    def make(self, make: Callable[[], Job | None]) -> Job | None:
        """The job that ``make`` returns, not yet run; None, and said, if it cannot be done."""
        try:
            return make()
        except ValueError as error:
            self.refused.emit(str(error))
            return None

    def receive(self, event: Any) -> None:
        """Take what a job of this coordinator delivers, in the GUI thread."""

    def follow(self, slot: Callable[..., object], *events: Any) -> None:
        """Call ``slot`` at these events of the viewer until the dock closes."""
        follow(self.context.cleanup, slot, *events)

    def follow_jobs(self, kind: str, slot: Callable[[Job, bool], object]) -> None:
        """Call ``slot`` with each job of a kind and True when it starts, False when it ends."""

        def tell(job: Job, *, running: bool) -> None:
            if job.kind == kind:
                slot(job, running)

        runner = self.context.runner
        runner.started.connect(partial(tell, running=True))
        runner.ended.connect(partial(tell, running=False))

    def follow_layers(self, slot: Callable[..., object]) -> None:
        """Call ``slot`` whenever layers come, go or get another name."""
        events = self.viewer.layers.events
        self.follow(slot, events.inserted, events.removed, events.renamed)

    def add_layer(self, layer: Layer) -> None:
        """Put a layer on top of the others and leave the selection as it is."""
        add_layer(self.viewer, layer)


def follow(cleanup: ExitStack, slot: Callable[..., object], *events: Any) -> None:
    """Connect ``slot`` to events of a viewer, to be disconnected by ``cleanup``."""
    for event in events:
        event.connect(slot)
        cleanup.callback(event.disconnect, slot)


def add_layer(viewer: Viewer, layer: Layer) -> None:
    """Add a layer without selecting it or moving the view: whoever paints goes on painting."""
    selected, camera = set(viewer.layers.selection), viewer.scene.camera
    center, zoom = camera.center, camera.zoom
    draw_in_another_turn()
    # to announce the selection there and back costs a third of what adding a layer does
    with viewer.layers.selection.events.blocker_all():
        viewer.add_layer(layer)
        viewer.layers.selection = selected
    # napari fits the view to all layers whenever the number of axes changes
    camera.center, camera.zoom = center, zoom
