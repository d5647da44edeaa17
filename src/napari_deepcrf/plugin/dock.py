"""The dock widget: puts the panels together and wires them to the session."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QEvent, QObject, QSize, QTimer
from qtpy.QtWidgets import QTabWidget, QVBoxLayout, QWidget

from napari_deepcrf.crf import CRFParameters
from napari_deepcrf.plugin import preferences
from napari_deepcrf.plugin.activity import Activity
from napari_deepcrf.plugin.annotating import Annotating
from napari_deepcrf.plugin.batching import Batching
from napari_deepcrf.plugin.context import Context, Coordinator
from napari_deepcrf.plugin.garbage import LastingObjects
from napari_deepcrf.plugin.image_choice import ImageChoice
from napari_deepcrf.plugin.keys import add_digit_shortcuts, bind_keys
from napari_deepcrf.plugin.model_choice import ModelChoice
from napari_deepcrf.plugin.panels.annotate_panel import KEYS, AnnotatePanel
from napari_deepcrf.plugin.panels.batch_panel import BatchPanel
from napari_deepcrf.plugin.panels.crf_panel import CRFPanel
from napari_deepcrf.plugin.panels.form import scrolled
from napari_deepcrf.plugin.panels.source_panel import SourcePanel
from napari_deepcrf.plugin.panels.status_panel import StatusPanel
from napari_deepcrf.plugin.panels.tools_panel import ToolsPanel
from napari_deepcrf.plugin.panels.train_panel import TrainPanel
from napari_deepcrf.plugin.panels.view_panel import ViewPanel
from napari_deepcrf.plugin.readout import Readout
from napari_deepcrf.plugin.result_layers import ResultLayers
from napari_deepcrf.plugin.segmenting import Segmenting
from napari_deepcrf.plugin.tiling import Tiling
from napari_deepcrf.plugin.tools import Tools
from napari_deepcrf.plugin.training_control import TrainingControl
from napari_deepcrf.plugin.workers import Runner
from napari_deepcrf.session import CRFSettings, Job, Progress, Session
from napari_deepcrf.session.learning import Learning

if TYPE_CHECKING:
    import napari.viewer

DOCK_WIDTH = 300
TELL_PROGRESS = ("train", "batch", "tiles")
"""Kinds of jobs whose panels show how far they are, too."""
OUTSIDE_SESSION = ("warm-up", "autosave", "restore")
"""Kinds of jobs that make nothing of the session's."""


class DeepCRFWidget(QWidget):
    """Segment the chosen image, move the CRF's parameters, annotate and train."""

    def __init__(self, viewer: napari.viewer.Viewer, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        # napari hands plugins a proxy that wraps every layer anew; layers are held and compared
        # as objects here, so the viewer itself is used (only by its public names).
        self.viewer: napari.viewer.Viewer = getattr(viewer, "__wrapped__", viewer)
        viewer = self.viewer
        self.session = Session(
            CRFSettings(parameters=CRFParameters()), preferences.recall("device")
        )
        self.runner = Runner(self)
        self._cleanup = ExitStack()
        self._segment_once_loaded = self._closing = False
        LastingObjects(self.viewer, self.runner, self._cleanup, self)
        self._build_panels()
        self.learning = Learning(self.session)
        self.image_choice = ImageChoice(
            viewer, self.session, self.source_panel, self._cleanup, self
        )
        context = Context(
            viewer,
            self.session,
            self.runner,
            self.image_choice,
            self.learning.classes,
            self._cleanup,
        )
        self.model_choice = ModelChoice(context, self.source_panel, self)
        self.result_layers = ResultLayers(viewer, context.colours)
        self.segmenting = Segmenting(
            context, self.result_layers, self.source_panel, self.crf_panel, self.view_panel, self
        )
        self.annotating = Annotating(context, self.learning, self.annotate_panel, self)
        self.training = TrainingControl(
            context, self.learning, self.annotating, self.train_panel, self
        )
        self.tools = Tools(context, self.tools_panel, self)
        self.batching = Batching(context, self.batch_panel, self)
        self.tiling = Tiling(context, self.batch_panel.tiles, self)
        self.readout = Readout(viewer, self.session, self.result_layers, self._cleanup)
        self._wire()
        self._show_settings()
        self._apply_theme()
        self._release = _Release(self._cleanup)
        self.destroyed.connect(self._release)
        QTimer.singleShot(0, self._start)

    # ---- building ----------------------------------------------------------------------

    def _build_panels(self) -> None:
        self.source_panel = SourcePanel()
        self.status_panel = StatusPanel()
        self.view_panel = ViewPanel()
        self.crf_panel = CRFPanel()
        self.tabs = QTabWidget()
        self.annotate_panel = AnnotatePanel()
        self.train_panel = TrainPanel()
        self.tools_panel = ToolsPanel()
        self.batch_panel = BatchPanel()
        for panel, title in (
            (self.crf_panel, "CRF"),
            (self.annotate_panel, "Annotate"),
            (self.train_panel, "Train"),
            (self.tools_panel, "Tools"),
            (self.batch_panel, "Batch"),
        ):
            self.tabs.addTab(scrolled(panel), title)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(0)
        for widget in (self.source_panel, self.status_panel, self.view_panel):
            layout.addWidget(widget)
        layout.addWidget(self.tabs, stretch=1)
        self.setMinimumWidth(280)

    def _wire(self) -> None:
        session, runner = self.session, self.runner
        self.source_panel.segment_clicked.connect(self.segment_when_ready)
        self.status_panel.cancel_clicked.connect(self.cancel)
        coordinators: tuple[Coordinator, ...] = (
            self.model_choice,
            self.segmenting,
            self.annotating,
            self.training,
            self.tools,
            self.batching,
            self.tiling,
        )
        for part in coordinators:
            part.refused.connect(self.status_panel.show_error)
        self._receivers: dict[str, Coordinator] = {
            "warm-up": self.model_choice,
            "model": self.model_choice,
            "autosave": self.annotating,
            "restore": self.annotating,
            "train": self.training,
            "compare": self.training,
            "objects": self.tools,
            "batch": self.batching,
            "tiles": self.tiling,
        }
        self.annotating.live_wanted.connect(self.segmenting.submit)
        self.training.segment_wanted.connect(self._segment)
        self.tools.segment_wanted.connect(self._segment)
        runner.delivered.connect(self._on_event)
        self.activity = Activity(runner, self.status_panel, self)
        session.settings_changed.connect(self._show_settings)
        session.model_changed.connect(self._show_settings)
        session.identity_changed.connect(self._show_freshness)
        theme = self.viewer.events.theme
        theme.connect(self._apply_theme)
        self._cleanup.callback(theme.disconnect, self._apply_theme)
        self._cleanup.callback(session.release)
        self._cleanup.callback(runner.close)
        self._cleanup.callback(self.activity.close)
        keys: dict[str, Callable[[], object]] = {
            "Shift-D": self.segment_when_ready,
            "Shift-A": self.annotate,
            "Shift-S": self.train,
        }
        bind_keys(self.viewer, keys, self._cleanup)
        add_digit_shortcuts(self, self.annotating.pick, KEYS)

    def _start(self) -> None:
        window = self.window()
        if window is not None:
            window.installEventFilter(self)
        self.model_choice.load_libraries()

    def sizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        """As wide as napari's own docks."""
        return QSize(DOCK_WIDTH, super().sizeHint().height())

    # ---- use cases that belong to no panel ---------------------------------------------

    def segment_when_ready(self) -> None:
        """Segment, at once or as soon as the first model is loaded."""
        if self.session.model is not None or self.session.scores is not None:
            self._segment()
            return
        self._segment_once_loaded = True
        if not self.runner.is_busy("model"):
            self.model_choice.load_libraries()

    def _segment(self) -> None:
        """Segment the image; where the memory does not hold that, offer tiles instead."""
        if self.tiling.offer():
            self.show_tab("Batch")
            self.batch_panel.tiles.run.setFocus()
        else:
            self.segmenting.segment()

    def cancel(self) -> None:
        """Stop what runs, as soon as its worker looks."""
        for job in self.runner.jobs:
            self.session.cancel(job)
        self.activity.cancel()

    def show_tab(self, title: str) -> None:
        """Show the tab of this title."""
        titles = map(self.tabs.tabText, range(self.tabs.count()))
        self.tabs.setCurrentIndex(list(titles).index(title))

    def annotate(self) -> None:
        """Show the Annotate tab and paint on the chosen image."""
        self.show_tab("Annotate")
        self.annotating.annotate()

    def train(self) -> None:
        """Show the Train tab and start a training."""
        self.show_tab("Train")
        self.training.train()

    # ---- what jobs tell ----------------------------------------------------------------

    def _on_event(self, job: Job, event: Any) -> None:
        receiver = self._receivers.get(job.kind)
        if isinstance(event, Progress):
            wanted = job.kind in TELL_PROGRESS
        elif job.kind in OUTSIDE_SESSION:
            wanted = True
        else:
            wanted = self.session.receive(job, event)
            if wanted:
                self.learning.receive(event)
        if wanted and receiver is not None:
            receiver.receive(event)
        if self._segment_once_loaded and self.session.model is not None:
            self._segment_once_loaded = False
            self._segment()

    # ---- showing state -----------------------------------------------------------------

    def _show_settings(self, _event: object = None) -> None:
        learned = self.session.learned_settings
        self.crf_panel.show_settings(
            self.session.settings, None if learned is None else learned.parameters
        )

    def _show_freshness(self) -> None:
        shown = self.result_layers.is_shown(self.image_choice.layer)
        stale = "stale" if shown and self.session.result is not None else "none"
        self.status_panel.set_badge("fresh" if self.session.fresh else stale)

    def _apply_theme(self, _event: object = None) -> None:
        self.crf_panel.apply_theme(self.viewer.theme)
        self.train_panel.apply_theme(self.viewer.theme)

    # ---- the end -----------------------------------------------------------------------

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:  # noqa: N802 - Qt's name
        """Stop timers and workers when the viewer's window closes, but not if it refuses to."""
        kind = None if event is None else event.type()
        if kind == QEvent.Type.Close:
            self._closing = True
        elif kind == QEvent.Type.Hide and self._closing:
            self._cleanup.close()
        return bool(super().eventFilter(watched, event))


class _Release:
    """Called when the widget is destroyed; knows nothing of the widget itself."""

    def __init__(self, cleanup: ExitStack) -> None:
        self._cleanup = cleanup

    def __call__(self, _object: object = None) -> None:
        self._cleanup.close()
