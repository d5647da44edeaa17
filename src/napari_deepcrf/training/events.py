"""What a training run reports: plain records, yielded in order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

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
    learning_rate: float
    seconds: float
    names: tuple[str, ...]


@dataclass(frozen=True)
class Validated:
    """Intersection over union on the validation samples after ``step``, by class that occurs."""

    stage: Stage
    step: int
    mean_iou: float
    per_class: Mapping[str, float]
    best: bool


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


StageEvent = StageStarted | StepDone | Validated | CheckpointSaved | Finished
Event = StageEvent | ReportWritten
