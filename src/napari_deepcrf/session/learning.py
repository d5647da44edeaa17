"""Learning from annotations: a training in the background, and the live fit after each stroke."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from psygnal import Signal

from napari_deepcrf.session import live, training
from napari_deepcrf.session.annotations import ClassList
from napari_deepcrf.session.tiles import memory_problem
from napari_deepcrf.session.training import (
    LabelledImage,
    TrainingDone,
    TrainingPlan,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from napari_deepcrf.models import DeepCRF
    from napari_deepcrf.session.events import Event, Job
    from napari_deepcrf.session.session import Session

Array = npt.NDArray[Any]

TRAINED = " (trained)"


class Learning:
    """State of training and of live mode, on top of a session."""

    trained = Signal(object)
    """TrainingDone: the session uses the new model on trial, until `keep` or `revert`"""
    settled = Signal(bool)
    """The trial is over: True if the new model was kept"""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.classes = ClassList(())
        self._stop = threading.Event()
        self._previous: tuple[str, DeepCRF] | None = None
        self._features: live.FeatureCache | None = None
        self._revision = 0

    @property
    def on_trial(self) -> bool:
        """Whether a trained model waits for the user's verdict."""
        return self._previous is not None

    def train(
        self,
        read_pairs: Callable[[], Sequence[LabelledImage]] | None,
        folder: Path | None,
        config: str,
    ) -> Job:
        """Job that trains a copy of the model on annotated images, or on a folder.

        ``read_pairs`` is called in the worker: copies of large annotations take long.

        Raises
        ------
        ValueError
            If nothing is annotated and no folder was given, or no model is loaded.
        """
        session = self.session
        if session.model is None:
            raise ValueError("model: expected a model to start from, got none")
        if folder is None and read_pairs is None:
            raise ValueError("annotations: expected a painted image, got none")
        plan = TrainingPlan(
            read_pairs=read_pairs,
            folder=folder,
            class_names=self.classes.names,
            init=session.model,
            config=config,
            preview=session.image,
            device=session.device,
        )
        stop = self._stop = threading.Event()
        return session.job("train", "Training", lambda: training.train(plan, stop))

    def stop(self) -> None:
        """End the running training at its next step and keep the best state."""
        self._stop.set()

    def receive(self, event: Event) -> None:
        """Take over the outcome of a training that is still wanted."""
        if isinstance(event, live.FeatureCache):
            self._features = event
        elif isinstance(event, TrainingDone) and self.session.model is not None:
            name = self.session.model_name
            if self._previous is None:
                self._previous = (name, self.session.model)
            self.session.choose_model(name.removesuffix(TRAINED) + TRAINED, event.model)
            self.trained.emit(event)

    def keep(self) -> None:
        """Go on with the trained model."""
        if self._previous is not None:
            self._previous = None
            self.settled.emit(True)

    def revert(self) -> None:
        """Go back to the model from before the training."""
        if self._previous is not None:
            name, model = self._previous
            self._previous = None
            self.session.choose_model(name, model)
            self.settled.emit(False)

    def prepare_live(self) -> Job | None:
        """Job that computes what live mode needs of the image before any stroke; None if it has."""
        session = self.session
        image, model, key = session.image, session.model, session.model_key
        if image is None or model is None or memory_problem(session):
            return None
        if self._features is not None and self._features.is_of(image, key):
            return None
        steps = lambda: live.prepare(image, model, key)  # noqa: E731 - the job's generator
        return session.job("features", "Computing features", steps, quiet=True)

    def live(self, annotation: Array) -> Job:
        """Job that fits the top layer to the scribbles (H, W) and refines with it.

        Raises
        ------
        ValueError
            If there is no image or no model, fewer than two classes are annotated, or there is not
            the memory for the image as a whole.
        """
        session = self.session
        image, model = session.image, session.model
        if image is None or model is None:
            raise ValueError("live: expected an image and a model, got none")
        if problem := memory_problem(session):
            raise ValueError(problem)
        if np.unique(annotation[annotation > 0]).size < 2:
            raise ValueError("scribbles: expected strokes of two or more classes, got fewer")
        self._revision += 1
        session.choose_fit(f"scribbles {self._revision}")
        identity, key, names = session.identity, session.model_key, self.classes.names
        snapshot = annotation.copy()

        def steps() -> Iterator[Event]:
            # features are replaced, never changed: those of a job before this one are here by now
            return live.live(image, model, snapshot, self._features, identity, key, names)

        return session.job("live", "Following the scribbles", steps)

    def end_live(self) -> None:
        """Back to the model's own scores; the live result is out of date then."""
        self.session.choose_fit("")
