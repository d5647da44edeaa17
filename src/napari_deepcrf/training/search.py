"""Searching the CRF's parameters behind a fixed network: the piecewise training of reference [3].

It gives joint training its start widths, and it is what joint training is compared with.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from napari_deepcrf.crf import CRFParameters, DenseCRF
from napari_deepcrf.data.samples import SegmentationDataset
from napari_deepcrf.models.deepcrf import DeepCRF
from napari_deepcrf.training.batches import image_tensor
from napari_deepcrf.training.metrics import IoUMeter

_NAMES = ("w_bilateral", "theta_beta", "theta_alpha", "w_spatial", "theta_gamma")


@dataclass(frozen=True)
class Trial:
    """Parameters and the mean IoU that they gave."""

    parameters: CRFParameters
    mean_iou: float


def search_crf(
    model: DeepCRF,
    dataset: SegmentationDataset,
    start: CRFParameters,
    *,
    factors: Sequence[float] = (0.5, 2.0, 0.7, 1.4),
    classes: Sequence[str] | None = None,
    on_trial: Callable[[Trial], object] | None = None,
) -> Trial:
    """Coordinate search: each parameter in turn by each factor, what is better stays.

    The network runs once per sample; its scores are kept in memory as float16. ``classes``
    restricts the mean IoU that decides. Widths must be scalars in ``start``.
    """
    cached = [_scores(model, dataset, index) for index in range(len(dataset))]

    def measure(parameters: CRFParameters) -> Trial:
        crf = DenseCRF(parameters, iterations=model.crf.iterations)
        meter = IoUMeter(model.class_names)
        with torch.inference_mode():
            for scores, image, truth in cached:
                meter.update(crf(scores.float(), image).argmax(1), truth)
        trial = Trial(parameters, meter.compute().mean_of(classes or model.class_names))
        if on_trial is not None:
            on_trial(trial)
        return trial

    best = measure(start)
    for name in _NAMES:
        for factor in factors:
            value = factor * float(getattr(start, name))
            trial = measure(replace(best.parameters, **{name: value}))
            if trial.mean_iou > best.mean_iou:
                best = trial
    return best


@torch.inference_mode()
def _scores(
    model: DeepCRF, dataset: SegmentationDataset, index: int
) -> tuple[Tensor, Tensor, Tensor]:
    sample = dataset[index]
    image = image_tensor(sample)
    return model.unary(image).half(), image, torch.tensor(sample.labels)[None]
