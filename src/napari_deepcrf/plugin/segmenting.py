"""Segment and refine: from panels to jobs, and from results to layers and curves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject

from napari_deepcrf.plugin.palette import RGB, class_colours
from napari_deepcrf.plugin.qt import Signal, single_shot

if TYPE_CHECKING:
    from napari.viewer import Viewer

    from napari_deepcrf.plugin.image_choice import ImageChoice
    from napari_deepcrf.plugin.images import Plane
    from napari_deepcrf.plugin.panels.crf_panel import CRFPanel
    from napari_deepcrf.plugin.panels.view_panel import ViewPanel
    from napari_deepcrf.plugin.result_layers import ResultLayers
    from napari_deepcrf.plugin.workers import Runner
    from napari_deepcrf.session import Job, Result, Session

DEBOUNCE_MS = 60
MEASURE_AFTER_MS = 400


class Segmenting(QObject):
    """Runs the use cases that make results, and shows the results."""

    refused = Signal(str)
    shown = Signal(object)  # Result, once all its layers are up to date

    def __init__(
        self,
        viewer: Viewer,
        session: Session,
        runner: Runner,
        choice: ImageChoice,
        layers: ResultLayers,
        crf_panel: CRFPanel,
        view_panel: ViewPanel,
        cleanup: ExitStack,
        parent: QObject,
    ) -> None:
        super().__init__(parent)
        self._viewer, self._session, self._runner = viewer, session, runner
        self._choice, self._layers = choice, layers
        self._crf, self._view = crf_panel, view_panel
        self._places: dict[Any, tuple[object, Plane]] = {}
        self._steps: Iterator[None] | None = None
        self._debounce = single_shot(self, DEBOUNCE_MS, self.refine)
        self._idle = single_shot(self, MEASURE_AFTER_MS, self._measure)
        self._turn = single_shot(self, 0, self._advance)
        crf_panel.changed.connect(self.change)
        crf_panel.back_to_learned.connect(session.back_to_learned)
        view_panel.class_chosen.connect(lambda index: self._move("class", index))
        view_panel.update_chosen.connect(lambda index: self._move("update", index))
        session.result_changed.connect(self._on_result)
        session.divergence_changed.connect(crf_panel.show_divergence)
        session.settings_changed.connect(self._on_settings_changed)
        for event, slot in (
            (viewer.layers.events.removed, self._on_removed),
            (viewer.dims.events.current_step, self._follow_dims),
        ):
            event.connect(slot)
            cleanup.callback(event.disconnect, slot)
        cleanup.callback(self.stop)

    def segment(self) -> None:
        """Network and CRF on the image chosen."""
        try:
            job = self._session.segment()
        except ValueError as error:
            self.refused.emit(str(error))
            return
        self.submit(job)

    def refine(self) -> None:
        """Mean field again on cached scores, if there are any for this image."""
        if self._session.can_refine() and not self._session.fresh:
            self.submit(self._session.refine())

    def stop(self) -> None:
        """Stop the timers; nothing more is shown."""
        self._debounce.stop()
        self._idle.stop()
        self._turn.stop()
        self._steps = None

    @property
    def is_waiting(self) -> bool:
        """Whether something is about to happen: a debounced change, or layers to be shown."""
        return self._steps is not None or self._debounce.isActive() or self._idle.isActive()

    @property
    def colours(self) -> tuple[RGB, ...]:
        """Colours of the present result's classes."""
        result = self._session.result
        return () if result is None else class_colours(result.class_names)

    def submit(self, job: Job) -> None:
        """Run a job that makes a result of the image chosen now."""
        plane, layer = self._choice.plane, self._choice.layer
        if plane is not None:
            self._places[plane.source.key] = (layer, plane)
        self._runner.submit(job)

    def _measure(self) -> None:
        """Compute the KL curve once nothing else is wanted of the CRF."""
        if not self._runner.is_busy("segment", "refine"):
            job = self._session.measure()
            if job is not None:
                self._runner.submit(job)

    def change(self, changes: dict[str, Any]) -> None:
        """Change CRF settings, as a slider does; impossible ones are refused in one line."""
        try:
            self._session.change_settings(**changes)
        except ValueError as error:
            self.refused.emit(str(error))

    def _on_settings_changed(self, _settings: object) -> None:
        self._debounce.start()

    def _on_result(self, result: Result | None) -> None:
        if result is None:
            return
        place = self._places.get(result.identity.image)
        if place is None:
            return
        self._places = {result.identity.image: place}
        owner, plane = place
        first = self._layers.get("history") is None
        self._crf.show_changes(result.changed)
        self._view.set_result(
            result.class_names, class_colours(result.class_names), result.iterations
        )
        self._steps = self._show(result, owner, plane, first=first)
        self._turn.start()

    def _show(self, result: Result, owner: object, plane: Plane, *, first: bool) -> Iterator[None]:
        history = self._layers.get("history")
        at_end = history is None or self._position("update") >= history.data.shape[0] - 1
        yield from self._layers.steps(
            result,
            owner,
            plane.source.name,
            plane.placement,
            class_colours(result.class_names),
        )
        if at_end:
            self._move("update", result.iterations)
        if first:
            self._name_axes()
            self._move("class", _largest_class(result))
        self._follow_dims()
        self._layers.mark(fresh=self._session.fresh)
        self._idle.start()
        self.shown.emit(result)

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
            self._turn.start()

    def _on_removed(self, event: Any) -> None:
        self._layers.forget(event.value)

    def _axis(self, name: str) -> int | None:
        """Axis of the viewer that holds classes or updates, if layers with it are there."""
        history, marginals = self._layers.get("history"), self._layers.get("marginals")
        layer = marginals if name == "class" else (history or marginals)
        if layer is None:
            return None
        axis: int = self._viewer.dims.ndim - layer.ndim
        if name == "update" and layer is marginals:
            axis += 1
        return axis

    def _position(self, name: str) -> int:
        axis = self._axis(name)
        return 0 if axis is None else int(self._viewer.dims.current_step[axis])

    def _move(self, name: str, index: int) -> None:
        axis = self._axis(name)
        if axis is not None:
            self._viewer.dims.set_current_step(axis, index)

    def _name_axes(self) -> None:
        labels = list(self._viewer.dims.axis_labels)
        for name in ("class", "update"):
            axis = self._axis(name)
            if axis is not None:
                labels[axis] = name
        self._viewer.dims.axis_labels = tuple(labels)

    def _follow_dims(self, _event: object = None) -> None:
        if self._session.result is not None:
            self._view.show_position(self._position("class"), self._position("update"))


def _largest_class(result: Result) -> int:
    """The class to look at first: the one that covers most, background apart."""
    import numpy as np

    counts = np.bincount(result.labels.ravel(), minlength=len(result.class_names))
    return int(np.argmax(counts[1:]) + 1) if counts[1:].any() else 0
