"""The application's state and use cases. No Qt: a window, a script or a test drives it alike.

Work is handed out as `Job` values and comes back as events through `Session.receive`, in the
main thread. The session's state changes nowhere else, so no lock is needed; an event of a job
that is no longer the latest of its kind, or whose image or model has gone, is dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from psygnal import Signal

from napari_deepcrf.session import jobs
from napari_deepcrf.session.events import DivergenceReady, Event, Job, ModelReady, ResultReady
from napari_deepcrf.session.images import ImageSource, ScoreSource
from napari_deepcrf.session.refiner import UnaryCache
from napari_deepcrf.session.results import Identity, Result
from napari_deepcrf.session.settings import CRFSettings

if TYPE_CHECKING:
    from napari_deepcrf.models import DeepCRF


class Session:
    """Image, model, CRF settings and the last result, each with a signal."""

    image_changed = Signal(object)
    """ImageSource or None"""
    model_changed = Signal(object)
    """DeepCRF or None"""
    scores_changed = Signal(object)
    """ScoreSource or None: another tool's scores in place of the network's"""
    settings_changed = Signal(CRFSettings)
    result_changed = Signal(object)
    """Result or None"""
    freshness_changed = Signal(bool)
    """False once the result no longer belongs to the image, model and settings chosen"""
    divergence_changed = Signal(tuple)
    """KL per pixel after every update of the present result; empty until it is measured"""

    def __init__(self, settings: CRFSettings, device: str = "auto") -> None:
        self.device = device
        self._settings = settings
        self._image: ImageSource | None = None
        self._scores: ScoreSource | None = None
        self._model: DeepCRF | None = None
        self._model_name = ""
        self._model_revision = 0
        self._cache: UnaryCache | None = None
        self._result: Result | None = None
        self._fresh = False
        self._fit = ""
        self._generation: dict[str, int] = {}

    # ---- state -------------------------------------------------------------------------

    @property
    def image(self) -> ImageSource | None:
        """The image to be segmented."""
        return self._image

    @property
    def scores(self) -> ScoreSource | None:
        """Another tool's scores, if they replace the network's."""
        return self._scores

    @property
    def model(self) -> DeepCRF | None:
        """The model in use; take it as read-only."""
        return self._model

    @property
    def model_name(self) -> str:
        """Name or path that the model was loaded by."""
        return self._model_name

    @property
    def settings(self) -> CRFSettings:
        """The CRF's settings as chosen now."""
        return self._settings

    @property
    def result(self) -> Result | None:
        """The last result, fresh or not."""
        return self._result

    @property
    def cache(self) -> UnaryCache | None:
        """Scores and lattices of the last image segmented."""
        return self._cache

    @property
    def fresh(self) -> bool:
        """Whether the result belongs to the present image, model and settings."""
        return self._fresh

    @property
    def class_names(self) -> tuple[str, ...]:
        """Classes of whatever makes the scores."""
        if self._scores is not None:
            return self._scores.class_names
        return () if self._model is None else tuple(self._model.class_names)

    @property
    def learned_settings(self) -> CRFSettings | None:
        """The settings that the model was trained to, if there is a model."""
        if self._model is None:
            return None
        return self._learned(self._model)

    # ---- choices -----------------------------------------------------------------------

    def choose_image(self, image: ImageSource | None) -> None:
        """Make this the image; an equal one changes nothing."""
        if image != self._image:
            self._image = image
            self._supersede("segment", "refine", "live")
            self.image_changed.emit(image)
            self._update_freshness()

    def choose_scores(self, scores: ScoreSource | None) -> None:
        """Refine another tool's scores instead of the network's; None goes back to the model."""
        if scores != self._scores:
            self._scores = scores
            self._supersede("segment", "refine", "live")
            self.scores_changed.emit(scores)
            self._update_freshness()

    def choose_model(self, name: str, model: DeepCRF | None) -> None:
        """Make this the model and take over its learned CRF parameters."""
        self._model, self._model_name = model, name
        self._model_revision += 1
        self._supersede("segment", "refine", "live", "model")
        if model is not None:
            self._settings = self._learned(model)
        self.model_changed.emit(model)
        self.settings_changed.emit(self._settings)
        self._update_freshness()

    def choose_fit(self, name: str) -> None:
        """The model's top layer is replaced by a fit of this name; none goes back to its own."""
        if name != self._fit:
            self._fit = name
            self._supersede("segment", "refine", "live")
            self._update_freshness()

    def choose_device(self, device: str) -> None:
        """Run networks on ``auto``, ``cpu`` or ``cuda``; results stay valid."""
        self.device = device

    def change_settings(self, **changes: Any) -> None:
        """Change CRF settings or kernel parameters by name; see `CRFSettings.with_`."""
        settings = self._settings.with_(**changes)
        if settings != self._settings:
            self._settings = settings
            self._supersede("refine")
            self.settings_changed.emit(settings)
            self._update_freshness()

    def back_to_learned(self) -> None:
        """Set the kernel parameters to what the model was trained to."""
        if self.learned_settings is not None:
            self.change_settings(parameters=self.learned_settings.parameters)

    # ---- work --------------------------------------------------------------------------

    def load_model(self, name: str) -> Job:
        """Job that loads a model of the zoo, or a file, and makes it the session's."""
        return self.job("model", f"Loading {name}", lambda: jobs.load_model(name))

    def save_model(self, path: Path) -> Job:
        """Job that writes the model in use to a ``.safetensors`` file."""
        model = self._model
        if model is None:
            raise ValueError("model: expected a model to save, got none")
        return self.job("save", f"Saving {path.name}", lambda: jobs.save_model(model, path))

    def segment(self) -> Job:
        """Job that computes scores and refines them.

        Raises
        ------
        ValueError
            If there is no image, or neither a model nor another tool's scores.
        """
        self.choose_fit("")
        image, scores, model, device = self._image, self._scores, self._model, self.device
        if image is None:
            raise ValueError("image: expected an image to be chosen, got none")
        identity = self.identity
        self._supersede("refine")
        if scores is not None:
            return self.job(
                "segment",
                f"Refining {scores.name}",
                lambda: jobs.segment_scores(image, scores, device, identity),
            )
        if model is None:
            raise ValueError("model: expected a model to be loaded, got none")
        return self.job(
            "segment",
            f"Segmenting {image.name}",
            lambda: jobs.segment_image(image, model, device, identity),
        )

    def can_refine(self) -> bool:
        """Whether scores of the present image and model are at hand."""
        cache, image = self._cache, self._image
        return (
            cache is not None
            and image is not None
            and (cache.image_key, cache.unary_name) == (image.key, self._unary_name())
        )

    def refine(self) -> Job:
        """Job that runs only mean field, on cached scores, with the present settings.

        Raises
        ------
        ValueError
            If the scores at hand are not those of the present image and model.
        """
        cache = self._cache
        if cache is None or not self.can_refine():
            raise ValueError("scores: expected those of this image and model, segment it first")
        identity = self.identity
        return self.job("refine", "Refining", lambda: jobs.refine(cache, identity))

    def measure(self) -> Job | None:
        """Job that computes the KL curve of a fresh result; None if there is none."""
        cache, result = self._cache, self._result
        if cache is None or result is None or not self._fresh or not self.can_refine():
            return None
        identity = result.identity
        return self.job("measure", "Measuring", lambda: jobs.measure(cache, identity), quiet=True)

    def receive(self, job: Job, event: Event) -> bool:
        """Take over what a job produced, in the main thread; False if it came too late."""
        if not self.is_current(job):
            return False
        if isinstance(event, ModelReady):
            self.choose_model(event.name, event.model)
        elif isinstance(event, ResultReady):
            if event.cache is not None:
                self._cache = event.cache
            self._result = event.result
            self._supersede("measure")
            self.result_changed.emit(event.result)
            self.divergence_changed.emit(())
            self._update_freshness(announce=True)
        elif isinstance(event, DivergenceReady):
            self.divergence_changed.emit(event.values)
        return True

    def is_current(self, job: Job) -> bool:
        """Whether the job is the latest of its kind and nothing it used has changed."""
        return self._generation.get(job.kind) == job.generation

    def cancel(self, job: Job) -> None:
        """Drop whatever the job still delivers."""
        if self.is_current(job):
            self._supersede(job.kind)

    def forget_result(self) -> None:
        """Let go of the result and its arrays (the user removed its layers)."""
        self._result = None
        self.result_changed.emit(None)
        self._update_freshness()

    # ---- identity ----------------------------------------------------------------------

    def _unary_name(self) -> str:
        if self._scores is not None:
            return f"scores:{self._scores.key}"
        return f"model:{self.model_key}" + (f"+{self._fit}" if self._fit else "")

    @property
    def model_key(self) -> str:
        """Name and revision of the model in use."""
        return f"{self._model_name}#{self._model_revision}"

    @property
    def identity(self) -> Identity:
        """What a result made now would be made from."""
        key = None if self._image is None else self._image.key
        return Identity(image=key, unary=self._unary_name(), settings=self._settings)

    def _learned(self, model: DeepCRF) -> CRFSettings:
        return self._settings.with_(
            parameters=model.crf.crf_parameters(),
            iterations=max(1, model.crf.iterations),
            normalization=model.crf.normalization,
        )

    def job(
        self,
        kind: str,
        title: str,
        steps: Callable[[], Iterator[Event]],
        *,
        quiet: bool = False,
    ) -> Job:
        """Number a job as the latest of its kind; earlier ones are superseded."""
        self._supersede(kind)
        return Job(kind, self._generation[kind], title, steps, quiet)

    def _supersede(self, *kinds: str) -> None:
        for kind in kinds:
            self._generation[kind] = self._generation.get(kind, 0) + 1

    def _update_freshness(self, *, announce: bool = False) -> None:
        result = self._result
        fresh = result is not None and result.identity == self.identity
        if fresh != self._fresh or announce:
            self._fresh = fresh
            self.freshness_changed.emit(fresh)
