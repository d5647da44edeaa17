"""Searching the CRF's parameters behind a fixed network: the piecewise training of reference [3].

It gives joint training its start widths, and it is what joint training is compared with.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from torch import Tensor

from napari_deepcrf.crf import CRFParameters
from napari_deepcrf.data.samples import SegmentationDataset
from napari_deepcrf.models.crf_config import build_crf, crf_configuration
from napari_deepcrf.models.deepcrf import DeepCRF
from napari_deepcrf.training.batches import image_tensor
from napari_deepcrf.training.metrics import IoUMeter

SEARCHED = ("w_bilateral", "theta_beta", "theta_alpha", "w_spatial", "theta_gamma")
"""The parameters in the order in which a pass tries them, the most telling first."""


@dataclass(frozen=True)
class Trial:
    """Parameters and the mean IoU that they gave."""

    parameters: CRFParameters
    mean_iou: float


@dataclass(frozen=True)
class Search:
    """The outcome of a search."""

    best: Trial
    trials: tuple[Trial, ...]
    """Every set of parameters measured, in order; the first is the start."""


def search_crf(
    model: DeepCRF,
    dataset: SegmentationDataset,
    start: CRFParameters,
    *,
    random: int = 16,
    spread: float = 4.0,
    factors: Sequence[float] = (0.5, 2.0, 0.7, 1.4),
    passes: int = 2,
    classes: Sequence[str] | None = None,
    seed: int = 0,
    on_trial: Callable[[Trial], object] | None = None,
) -> Search:
    """Find the CRF that serves the model's unary scores best on held-out images.

    First ``random`` points around ``start``, then a coordinate search from the best of them: each
    parameter in turn by each factor, what is better stays. Each further pass takes steps half as
    long (in the logarithm).

    The network runs once per sample; its scores stay in memory as float16 (2·L·H·W bytes each).
    The same arguments give the same trials. The model is not changed.

    Parameters
    ----------
    model
        Gives the scores, and every option of the CRF but the searched numbers.
    start
        With one number for each width.
    random, seed
        How many random points, and the seed they come from.
    spread
        Random points have every parameter within this factor of the start's, log-uniformly.
    factors, passes
        Of the coordinate search.
    classes
        Whose mean IoU decides; by default all that occur.

    Raises
    ------
    ValueError
        For a start with a width per axis or channel, no sample, or a setting out of range.
    """
    if len(dataset) == 0:
        raise ValueError("dataset: expected at least one sample, got none")
    _check(start, random, spread, factors, passes)
    return _Searcher(model, dataset, classes, on_trial).run(
        start, _random_points(start, random, spread, seed), factors, passes
    )


class _Searcher:
    """Measures parameters on cached scores, each set once."""

    def __init__(
        self,
        model: DeepCRF,
        dataset: SegmentationDataset,
        classes: Sequence[str] | None,
        on_trial: Callable[[Trial], object] | None,
    ) -> None:
        self._names, self._classes = model.class_names, classes or model.class_names
        self._crf = crf_configuration(model.crf)
        self._backend = model.crf.options.backend
        self._on_trial = on_trial
        self._trials: dict[CRFParameters, Trial] = {}
        model.eval()
        self._cached = [_scores(model, dataset, index) for index in range(len(dataset))]

    def run(
        self,
        start: CRFParameters,
        points: Sequence[CRFParameters],
        factors: Sequence[float],
        passes: int,
    ) -> Search:
        best = max((self._measure(point) for point in (start, *points)), key=lambda t: t.mean_iou)
        for number in range(passes):
            for name in SEARCHED:
                centre = getattr(best.parameters, name)
                for factor in factors:
                    value = centre * factor ** (0.5**number)
                    trial = self._measure(replace(best.parameters, **{name: value}))
                    if trial.mean_iou > best.mean_iou:
                        best = trial
        return Search(best, tuple(self._trials.values()))

    @torch.inference_mode()
    def _measure(self, parameters: CRFParameters) -> Trial:
        if parameters not in self._trials:
            crf = build_crf(
                {**self._crf, "parameters": parameters.to_dict()}, backend=self._backend
            ).to(self._cached[0][1].device)
            meter = IoUMeter(self._names)
            for scores, image, truth in self._cached:
                meter.update(crf(scores.float(), image).argmax(1), truth)
            trial = Trial(parameters, meter.compute().mean_of(self._classes))
            self._trials[parameters] = trial
            if self._on_trial is not None:
                self._on_trial(trial)
        return self._trials[parameters]


def _random_points(
    start: CRFParameters, count: int, spread: float, seed: int
) -> list[CRFParameters]:
    rng = np.random.default_rng(seed)
    exponents = rng.uniform(-1, 1, (count, len(SEARCHED)))
    return [
        replace(
            start, **{n: getattr(start, n) * spread**x for n, x in zip(SEARCHED, row, strict=True)}
        )
        for row in exponents.tolist()
    ]


def _check(
    start: CRFParameters, random: int, spread: float, factors: Sequence[float], passes: int
) -> None:
    for field in fields(start):
        if isinstance(getattr(start, field.name), tuple):
            raise ValueError(f"start: expected one number for {field.name}, got one per axis")
    if random < 0 or passes < 0:
        raise ValueError(f"random, passes: expected at least 0, got {random} and {passes}")
    if not (spread >= 1 and all(0 < factor < math.inf for factor in factors)):
        raise ValueError(
            f"spread, factors: expected at least 1 and positive, got {spread} and {tuple(factors)}"
        )


@torch.inference_mode()
def _scores(
    model: DeepCRF, dataset: SegmentationDataset, index: int
) -> tuple[Tensor, Tensor, Tensor]:
    sample = dataset[index]
    image = image_tensor(sample).to(next(model.parameters()).device)
    return model.unary(image).half(), image, torch.tensor(sample.labels)[None]
