"""What a training run reports: plain records, yielded in order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Stage = Literal["unary", "joint"]


@dataclass(frozen=True)
class StageStarted:
    """A stage begins, at ``step`` when it was resumed."""

    stage: Stage
    step: int
    iterations: int


@dataclass(frozen=True)
class StepDone:
    """One update of the weights: ``step`` counts from 1."""

    stage: Stage
    step: int
    iterations: int
    loss: float
    """In nats per labelled pixel."""
    learning_rate: float
    """Of the network below the top layer; on scribbles the top layer's, and 0 for its fits."""
    seconds: float
    names: tuple[str, ...]
    """Of the samples that the update saw."""


@dataclass(frozen=True)
class Validated:
    """Intersection over union on the validation samples after ``step``, by class that occurs."""

    stage: Stage
    step: int
    mean_iou: float
    """Over the classes that occur, a fraction."""
    per_class: Mapping[str, float]
    best: bool
    """Whether it counts as the best of the stage so far."""
    train_mean_iou: float | None = None
    """On some of the training samples, where the stage measures them (figure 4 b)."""


@dataclass(frozen=True)
class CheckpointSaved:
    """A checkpoint was written whole."""

    stage: Stage
    step: int
    path: Path


@dataclass(frozen=True)
class Finished:
    """The stage is over after ``step`` updates; without validation the last counts as the best."""

    stage: Stage
    step: int
    best_step: int
    best_mean_iou: float | None


@dataclass(frozen=True)
class ReportWritten:
    """A file of the run's report is there."""

    path: Path


@dataclass(frozen=True, eq=False)
class Preview:
    """What the model, as it is after ``step``, makes of the run's `PreviewImage`."""

    stage: Stage
    step: int
    key: object
    """The image's identity, as the run was given it."""
    labels: NDArray[np.uint8]
    """(H, W), H and W being the image's own: class indices."""


StageEvent = StageStarted | StepDone | Validated | CheckpointSaved | Finished
Event = StageEvent | ReportWritten | Preview


def event_record(event: Event) -> dict[str, Any]:
    """An event as JSON-able values; of a preview's labels only their shape."""
    record: dict[str, Any] = {"event": type(event).__name__}
    for field in fields(event):
        value = getattr(event, field.name)
        if isinstance(value, np.ndarray):
            record["shape"] = list(value.shape)
        elif field.name in ("path", "key"):
            record[field.name] = str(value)
        else:
            record[field.name] = dict(value) if isinstance(value, Mapping) else value
    return record
