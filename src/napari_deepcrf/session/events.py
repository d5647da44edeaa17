"""What a running job tells the session: plain values, made in a worker, read in the main thread."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

if TYPE_CHECKING:
    from napari_deepcrf.models import DeepCRF
    from napari_deepcrf.session.region import Region
    from napari_deepcrf.session.results import Identity, Result
    from napari_deepcrf.session.unary_cache import UnaryCache


@dataclass(frozen=True)
class Progress:
    """How far a job is; ``total`` 0 means that nobody knows."""

    text: str
    done: int = 0
    total: int = 0


@dataclass(frozen=True)
class ModelReady:
    """A model was loaded; ``name`` is what the user asked for (a zoo name or a path)."""

    name: str
    model: DeepCRF


@dataclass(frozen=True)
class ResultReady:
    """A whole result; ``cache`` is set when new unaries were computed for it."""

    result: Result
    cache: UnaryCache | None = None


@dataclass(frozen=True, eq=False)
class RegionReady:
    """Labels (h, w) of a region at reduced resolution, to look at until the whole is done."""

    identity: Identity
    region: Region
    labels: npt.NDArray[Any]


@dataclass(frozen=True)
class DivergenceReady:
    """KL(q ‖ p) up to a constant, per pixel in nats, after update 0…T of a result."""

    identity: Identity
    values: tuple[float, ...]


Event = Any  # Progress | ModelReady | ResultReady | an event of the trainer, passed on unchanged


@dataclass(frozen=True, eq=False)
class Job:
    """Work to be done off the main thread: iterate ``steps()`` and hand every event back.

    The generator behind ``steps`` touches nothing mutable of the session: all it needs was
    captured when the job was made. It may be closed between two events, which cancels it; whoever
    runs it under `interruptible(job.cancelled)` can end it in the middle of a long piece as well.
    """

    kind: str
    generation: int
    title: str
    steps: Callable[[], Iterator[Event]] = field(repr=False)
    quiet: bool = False
    """Not worth a word in the window: nothing waits for it."""
    cancelled: threading.Event = field(default_factory=threading.Event, repr=False)
    """Set when the job is to stop."""
