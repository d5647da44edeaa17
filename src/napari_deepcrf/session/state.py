"""What the application is about: image, model, CRF settings and the last result, with signals."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from psygnal import Signal

from napari_deepcrf.session.events import RegionReady
from napari_deepcrf.session.generations import RESULT_KINDS, Generations
from napari_deepcrf.session.images import ImageSource, ScoreSource
from napari_deepcrf.session.results import Identity, Result, memory_needed
from napari_deepcrf.session.settings import MAX_ITERATIONS, CRFSettings, Keep
from napari_deepcrf.session.unary_cache import UnaryCache

if TYPE_CHECKING:
    from napari_deepcrf.models import DeepCRF


class SessionState:
    """The state, and the choices that change it; what was made for another state is superseded."""

    image_changed = Signal(object)
    """ImageSource or None"""
    model_changed = Signal(object)
    """DeepCRF or None"""
    scores_changed = Signal(object)
    """ScoreSource or None: another tool's scores in place of the network's"""
    settings_changed = Signal(CRFSettings)
    result_changed = Signal(object)
    """Result or None"""
    region_ready = Signal(RegionReady)
    """Labels of the part looked at, ahead of the whole result"""
    freshness_changed = Signal(bool)
    """False once the result no longer belongs to the image, model and settings chosen"""
    identity_changed = Signal()
    """What a result made now would be made from is another, or there is a new result"""
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
        # those of other images that someone still shows, by the images' keys
        self._results: WeakValueDictionary[Hashable, Result] = WeakValueDictionary()
        self._fresh = False
        self._fit = ""
        self._generations = Generations()

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
        """Make this the image, and its last result the present one, if anyone still holds it.

        An equal image changes nothing.
        """
        if image != self._image:
            self._image = image
            self._generations.supersede(*RESULT_KINDS)
            self.image_changed.emit(image)
            earlier = None if image is None else self._results.get(image.key)
            if earlier is not None and earlier is not self._result:
                self._show_result(earlier)
            else:
                self._update_freshness()

    def choose_scores(self, scores: ScoreSource | None) -> None:
        """Refine another tool's scores instead of the network's; None goes back to the model."""
        if scores != self._scores:
            self._scores = scores
            self._generations.supersede(*RESULT_KINDS)
            self.scores_changed.emit(scores)
            self._update_freshness()

    def choose_model(self, name: str, model: DeepCRF | None) -> None:
        """Make this the model and take over its learned CRF parameters."""
        self._model, self._model_name = model, name
        self._model_revision += 1
        self._generations.supersede(*RESULT_KINDS, "model")
        if model is not None:
            self._settings = self._learned(model)
        self.model_changed.emit(model)
        self.settings_changed.emit(self._settings)
        self._update_freshness()

    def choose_fit(self, name: str) -> None:
        """The model's top layer is replaced by a fit of this name; none goes back to its own."""
        if name != self._fit:
            self._fit = name
            self._generations.supersede(*RESULT_KINDS)
            self._update_freshness()

    def choose_device(self, device: str) -> None:
        """Run networks on ``auto``, ``cpu`` or ``cuda``; results stay valid."""
        self.device = device

    def change_settings(self, **changes: Any) -> None:
        """Change CRF settings or kernel parameters by name; see `CRFSettings.with_`."""
        settings = self._settings.with_(**changes)
        if settings != self._settings:
            self._settings = settings
            self._generations.supersede("refine", "region")
            self.settings_changed.emit(settings)
            self._update_freshness()

    def choose_keep(self, keep: Keep) -> None:
        """Keep these marginals of later results; what there is stays as it is."""
        if keep != self._settings.keep:
            self._settings = self._settings.with_(keep=keep)
            self.settings_changed.emit(self._settings)

    def back_to_learned(self) -> None:
        """Set the kernel parameters to what the model was trained to."""
        if self.learned_settings is not None:
            self.change_settings(parameters=self.learned_settings.parameters)

    def memory_needed(self) -> int:
        """Bytes at most that the layers of the present image's next result will take."""
        if self._image is None or not self.class_names:
            return 0
        settings = self._settings
        return memory_needed(
            len(self.class_names), settings.iterations, *self._image.shape, settings.keep
        )

    # ---- identity ----------------------------------------------------------------------

    def would_make(self, identity: Identity) -> bool:
        """Whether the present model, scores and settings make just this, given its image."""
        return replace(self.identity, image=identity.image) == identity

    def _show_result(self, result: Result) -> None:
        self._result = self._results[result.identity.image] = result
        self.result_changed.emit(result)
        self.divergence_changed.emit(())
        self._update_freshness(announce=True)

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
        crf = model.crf
        return self._settings.with_(
            parameters=crf.crf_parameters(),
            iterations=min(max(1, crf.iterations), MAX_ITERATIONS),
            quality=crf.quality,
            inference=crf.options.inference,
            normalization=crf.normalization,
            self_term=crf.options.self_term,
            extra_kernels=tuple(kernel.snapshot() for kernel in crf.kernels[2:]),
        )

    def _update_freshness(self, *, announce: bool = False) -> None:
        result = self._result
        fresh = result is not None and result.identity == self.identity
        if fresh != self._fresh or announce:
            self._fresh = fresh
            self.freshness_changed.emit(fresh)
        self.identity_changed.emit()
