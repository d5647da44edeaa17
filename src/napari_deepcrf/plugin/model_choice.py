"""Which model runs on which device: libraries and models are loaded, and listed in the dock."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject

from napari_deepcrf.plugin import folders, loading, preferences
from napari_deepcrf.plugin.context import Context, Coordinator
from napari_deepcrf.session import Job, ModelReady

if TYPE_CHECKING:
    from napari_deepcrf.plugin.panels.source_panel import SourcePanel

FALLBACK_MODEL = "voc-compact"


class ModelChoice(Coordinator):
    """Loads what the user chooses in the background; the choices last to the next start."""

    def __init__(self, context: Context, panel: SourcePanel, parent: QObject) -> None:
        super().__init__(context, parent)
        self._panel = panel
        self._names: tuple[str, ...] = ()
        self._fell_back = False
        panel.model_chosen.connect(self.load)
        panel.open_model.connect(self.open)
        panel.device_chosen.connect(self._choose_device)
        context.runner.failed.connect(self._on_failed)
        self.session.model_changed.connect(self._list)
        self._list()

    def load_libraries(self) -> None:
        """Load PyTorch and the kernels, then the model of last time."""
        runner = self.context.runner
        if not runner.is_busy("warm-up"):
            runner.submit(Job("warm-up", 0, "Loading PyTorch", loading.warm_up))

    def load(self, name: str) -> None:
        """Load a zoo name or a file."""
        self.start(lambda: self.session.load_model(name))

    def open(self) -> None:
        """Ask for a model's file, and use it."""
        path = folders.ask_model(self._panel)
        self._list()
        if path:
            self.load(path)

    def receive(self, event: Any) -> None:
        """List what there is; remember what is used."""
        if isinstance(event, loading.Ready):
            self._on_libraries(event)
        elif isinstance(event, ModelReady):
            preferences.remember("model", event.name)

    def _on_libraries(self, found: loading.Ready) -> None:
        if self.session.device not in dict(found.devices):
            self.session.choose_device("auto")
        self._panel.set_devices(found.devices, self.session.device, found.note)
        self._names = found.models
        self._list()
        if self.session.model is None:
            self.load(preferences.recall("model"))
        rest = Job("kernels", 0, "Preparing kernels", loading.warm_up_the_rest, quiet=True)
        self.context.runner.submit(rest)

    def _on_failed(self, job: Job, _message: str) -> None:
        # the model remembered from last time may have been moved away
        if job.kind == "model" and self.session.model is None and not self._fell_back:
            self._fell_back = True
            self.load(FALLBACK_MODEL)

    def _choose_device(self, device: str) -> None:
        self.session.choose_device(device)
        preferences.remember("device", device)

    def _list(self, _event: object = None) -> None:
        self._panel.set_models(self._names, self.session.model_name)
