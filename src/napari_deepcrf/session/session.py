"""The application's use cases. No Qt: a window, a script or a test drives them alike.

Work is handed out as `Job` values and comes back as events through `Session.receive`, in the
main thread. The session's state changes nowhere else, so no lock is needed; an event of a job
that is no longer the latest of its kind, or whose image or model has gone, is dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from napari_deepcrf.session import jobs
from napari_deepcrf.session.events import (
    DivergenceReady,
    Event,
    Job,
    ModelReady,
    RegionReady,
    ResultReady,
)
from napari_deepcrf.session.region import Region, refine_region
from napari_deepcrf.session.state import SessionState
from napari_deepcrf.session.tiles import memory_problem
from napari_deepcrf.session.unary_cache import UnaryCache


class Session(SessionState):
    """Makes the jobs that segment, refine and measure, and takes over what they produce."""

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
            If there is no image, neither a model nor another tool's scores, or not the memory for
            the image as a whole.
        """
        self.choose_fit("")
        image, scores, model, device = self._image, self._scores, self._model, self.device
        if image is None:
            raise ValueError("image: expected an image to be chosen, got none")
        if problem := memory_problem(self):
            raise ValueError(problem)
        identity = self.identity
        self._generations.supersede("refine", "region")
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
        cache, identity = self._scores_at_hand(), self.identity
        return self.job("refine", "Refining", lambda: jobs.refine(cache, identity))

    def refine_region(self, region: Region) -> Job:
        """Job that refines only a region, at reduced resolution; see `refine` for what raises."""
        steps = partial(refine_region, self._scores_at_hand(), self.identity, region)
        return self.job("region", "Refining", steps, quiet=True)

    def _scores_at_hand(self) -> UnaryCache:
        if self._cache is None or not self.can_refine():
            raise ValueError("scores: expected those of this image and model, segment it first")
        return self._cache

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
            self._generations.supersede("measure", "region")
            self._show_result(event.result)
        elif isinstance(event, RegionReady):
            self.region_ready.emit(event)
        elif isinstance(event, DivergenceReady):
            self.divergence_changed.emit(event.values)
        return True

    def is_current(self, job: Job) -> bool:
        """Whether the job is the latest of its kind and nothing it used has changed."""
        return self._generations.is_current(job)

    def cancel(self, job: Job) -> None:
        """Drop whatever the job still delivers."""
        if self.is_current(job):
            self._generations.supersede(job.kind)

    def release(self) -> None:
        """Let go of scores and result, and give a GPU's memory back to other programs."""
        self._cache = self._result = None
        self._results.clear()
        self._update_freshness()
        if self._model is not None:  # else PyTorch may not even be loaded
            from napari_deepcrf.device import release_memory, resolve_device

            release_memory(resolve_device(self.device))

    def job(
        self,
        kind: str,
        title: str,
        steps: Callable[[], Iterator[Event]],
        *,
        quiet: bool = False,
    ) -> Job:
        """Number a job as the latest of its kind; earlier ones are superseded."""
        return Job(kind, self._generations.next(kind), title, steps, quiet)
