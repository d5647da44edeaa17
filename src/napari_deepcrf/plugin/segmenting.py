"""Segment and refine: from panels to jobs, and from results to layers and curves."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject

from napari_deepcrf.plugin.context import Context, Coordinator
from napari_deepcrf.plugin.label_layers import recolour
from napari_deepcrf.plugin.qt import Signal, single_shot
from napari_deepcrf.plugin.sliding import Sliding
from napari_deepcrf.plugin.step_runner import StepRunner

if TYPE_CHECKING:
    from napari_deepcrf.plugin.images import Plane
    from napari_deepcrf.plugin.panels.crf_panel import CRFPanel
    from napari_deepcrf.plugin.panels.source_panel import SourcePanel
    from napari_deepcrf.plugin.panels.view_panel import ViewPanel
    from napari_deepcrf.plugin.result_layers import ResultLayers
    from napari_deepcrf.session import Job, Result
    from napari_deepcrf.session.settings import Keep

DEBOUNCE_MS = 60
MEASURE_AFTER_MS = 400


class Segmenting(Coordinator):
    """Runs the use cases that make results, and shows the results."""

    shown = Signal(object)  # Result, once all its layers are up to date

    def __init__(
        self,
        context: Context,
        layers: ResultLayers,
        source_panel: SourcePanel,
        crf_panel: CRFPanel,
        view_panel: ViewPanel,
        parent: QObject,
    ) -> None:
        super().__init__(context, parent)
        self._layers = layers
        self._source, self._crf, self._view = source_panel, crf_panel, view_panel
        self._places: dict[Any, tuple[object, Plane]] = {}
        self._kept_names: tuple[str, ...] = ()
        """Classes of the result shown last: its class slider's."""
        self._debounce = single_shot(self, DEBOUNCE_MS, self.refine)
        self._idle = single_shot(self, MEASURE_AFTER_MS, self._measure)
        self._step_runner = StepRunner(self)
        self.sliding = Sliding(context, layers, crf_panel, self)
        self._connect()
        context.cleanup.callback(self.stop)

    def _connect(self) -> None:
        session = self.session
        self._crf.changed.connect(self.change)
        self._crf.back_to_learned.connect(session.back_to_learned)
        self._view.class_chosen.connect(lambda index: self._move("class", index))
        self._view.update_chosen.connect(lambda index: self._move("update", index))
        self._source.keep_chosen.connect(self.keep)
        self.sliding.whole_wanted.connect(self.refine)
        self.sliding.refused.connect(self.refused)
        session.result_changed.connect(self._on_result)
        session.identity_changed.connect(self._mark)
        self.context.choice.other_changed.connect(self._mark)
        self.context.classes.changed.connect(self._recolour)
        session.divergence_changed.connect(self._crf.show_divergence)
        session.settings_changed.connect(self._on_settings_changed)
        for changed in (session.image_changed, session.model_changed, session.scores_changed):
            changed.connect(self._show_memory)
        self.follow(self._on_removed, self.viewer.layers.events.removed)
        self.follow(self._follow_dims, self.viewer.dims.events.current_step)
        self._show_memory()

    def segment(self) -> None:
        """Network and CRF on the image chosen."""
        self._remember_place()
        self.start(self.session.segment)

    def refine(self) -> None:
        """Mean field again on cached scores, if there are any for this image."""
        if self.session.can_refine() and not self.session.fresh:
            self._remember_place()
            self.start(self.session.refine)

    def keep(self, keep: Keep) -> None:
        """Keep these marginals; the layers of the image at hand follow."""
        self.session.choose_keep(keep)
        if self.session.can_refine():
            self._remember_place()
            self.start(self.session.refine)

    def submit(self, job: Job) -> None:
        """Run another coordinator's job that makes a result of the image chosen now."""
        self._remember_place()
        self.start(lambda: job)

    def stop(self) -> None:
        """Stop the timers; nothing more is shown."""
        self._debounce.stop()
        self._idle.stop()
        self._step_runner.stop()

    @property
    def is_waiting(self) -> bool:
        """Whether something is about to happen: a debounced change, or layers to be shown."""
        timers = self._debounce.isActive() or self._idle.isActive()
        return timers or self._step_runner.is_waiting or self.sliding.is_waiting

    def change(self, changes: dict[str, Any]) -> None:
        """Change CRF settings, as a slider does; impossible ones are refused in one line."""
        try:
            self.session.change_settings(**changes)
        except ValueError as error:
            self.refused.emit(str(error))

    def _remember_place(self) -> None:
        plane, layer = self.context.choice.plane, self.context.choice.layer
        if plane is not None:
            self._places[plane.source.key] = (layer, plane)

    def _measure(self) -> None:
        """Compute the KL curve once nothing else is wanted of the CRF."""
        if not self.context.runner.is_busy("segment", "refine", "region", "live"):
            self.start(self.session.measure)

    def _on_settings_changed(self, _settings: object) -> None:
        self._show_memory()
        if not self.sliding.slide():
            self._debounce.start()

    def _show_memory(self, _event: object = None) -> None:
        session = self.session
        self._source.show_memory(session.settings.keep, session.memory_needed())
        if session.image is not None:
            self._crf.set_channels(session.image.channels)

    def _on_result(self, result: Result | None) -> None:
        if result is None:
            return
        if self._layers.turn_to(result):  # back to an image: what is painted into them stays
            self._kept_names = result.kept_names
            self._show_in_panels(result)
            self._follow_dims()
            return
        place = self._places.get(result.identity.image)
        if place is None:
            return
        self._places = {result.identity.image: place}
        owner, plane = place
        first = self._layers.get("history") is None
        self._show_in_panels(result)
        self._step_runner.run(self._show(result, owner, plane, first=first))

    def _show_in_panels(self, result: Result) -> None:
        self._crf.show_changes(result.changed)
        colours = self.context.colours(result.class_names)
        self._view.set_result(
            result.kept_names, [colours[k] for k in result.classes], result.iterations
        )

    def _recolour(self) -> None:
        """Follow the class list in all layers of labels, and in the panel."""
        for layer in self.viewer.layers:
            recolour(layer, self.context.classes)
        if self.session.result is not None:
            self._show_in_panels(self.session.result)
            self._follow_dims()

    def _mark(self) -> None:
        """Tell results of all images that are out of date from those that are not."""
        self._layers.mark(self.context.is_fresh)

    def _show(self, result: Result, owner: object, plane: Plane, *, first: bool) -> Iterator[None]:
        history = self._layers.get("history")
        at_end = history is None or self._position("update") >= history.data.shape[0] - 1
        position = self._position("class")
        known = not first and position < len(self._kept_names)
        name = self._kept_names[position] if known else ""
        yield from self._layers.steps(result, owner, plane.source.name, plane.placement)
        if owner is self.context.choice.layer:
            yield from self.sliding.prepare(owner, plane.placement)
        if at_end:
            self._move("update", result.iterations)
        if first or result.kept_names != self._kept_names:  # here: a later result cuts this short
            self._kept_names = result.kept_names
            self._name_axes()
            self._move("class", _position_of(name, result))
        self._follow_dims()
        self._mark()
        self._idle.start()
        self.shown.emit(result)

    def _on_removed(self, event: Any) -> None:
        self._layers.forget(event.value)

    def _axis(self, name: str) -> int | None:
        """Axis of the viewer that holds classes or updates, if layers with it are there."""
        history, marginals = self._layers.get("history"), self._layers.get("marginals")
        layer = marginals if name == "class" else (history or marginals)
        if layer is None:
            return None
        axis: int = self.viewer.dims.ndim - layer.ndim
        if name == "update" and layer is marginals:
            axis += 1
        return axis

    def _position(self, name: str) -> int:
        axis = self._axis(name)
        return 0 if axis is None else round(self.viewer.dims.point[axis])

    def _move(self, name: str, index: int) -> None:
        axis = self._axis(name)
        if axis is not None:
            # these axes have no scale; the viewer's steps are those of the finest layer
            self.viewer.dims.set_point(axis, index)

    def _name_axes(self) -> None:
        labels = list(self.viewer.dims.axis_labels)
        for name in ("class", "update"):
            axis = self._axis(name)
            if axis is not None:
                labels[axis] = name
        self.viewer.dims.axis_labels = tuple(labels)

    def _follow_dims(self, _event: object = None) -> None:
        if self.session.result is not None:
            self._view.show_position(self._position("class"), self._position("update"))


def _position_of(name: str, result: Result) -> int:
    """Where a class is among those that a result keeps; that of the largest if it is not."""
    largest = result.class_names[result.largest_class]
    kept = result.kept_names
    return next((kept.index(wanted) for wanted in (name, largest) if wanted in kept), 0)
