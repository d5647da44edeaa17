"""Intersection over union per class, by torchmetrics."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics.classification import MulticlassConfusionMatrix

from napari_deepcrf.data.samples import VOID, Sample, SegmentationDataset
from napari_deepcrf.training.distributed import rank, shared_sum, world_size


@dataclass(frozen=True)
class IoU:
    """Intersection over union of every class over a whole set of images.

    ``per_class`` has NaN where a class occurs neither in the truth nor in the prediction.
    """

    class_names: tuple[str, ...]
    per_class: tuple[float, ...]
    pixel_accuracy: float
    """Share of the labelled pixels that have the right class."""

    @property
    def mean(self) -> float:
        """Mean over the classes that occur."""
        return self.mean_of(self.class_names)

    def mean_of(self, names: Sequence[str]) -> float:
        """Mean over some classes, leaving out those that do not occur."""
        values = [value for name, value in self.present().items() if name in names]
        return sum(values) / len(values) if values else float("nan")

    def present(self) -> dict[str, float]:
        """Class name → IoU of the classes that occur."""
        return {name: value for name, value in self.as_dict().items() if value == value}

    def as_dict(self) -> dict[str, float]:
        """Class name → IoU."""
        return dict(zip(self.class_names, self.per_class, strict=True))


class IoUMeter:
    """Sums the confusion matrix of predictions and truth, void pixels left out."""

    def __init__(self, class_names: tuple[str, ...]) -> None:
        self.class_names = class_names
        self._confusion = MulticlassConfusionMatrix(len(class_names), ignore_index=VOID)

    def update(self, predicted: Tensor, truth: Tensor) -> None:
        """Add label maps of equal shape; ``truth`` may hold `VOID`."""
        self._confusion.update(predicted.long().cpu(), truth.long().cpu())

    def compute(self) -> IoU:
        """The figures over everything added so far."""
        return self._figures(self._confusion.confmat)

    def compute_shared(self) -> IoU:
        """The figures over everything that the processes of a run have added so far."""
        return self._figures(shared_sum(self._confusion.confmat))

    def _figures(self, confusion: Tensor) -> IoU:
        confusion = confusion.double()
        hit = confusion.diag()
        union = confusion.sum(0) + confusion.sum(1) - hit
        per_class = torch.where(union > 0, hit / union, torch.full_like(hit, float("nan")))
        accuracy = float(hit.sum() / confusion.sum().clamp(min=1))
        return IoU(self.class_names, tuple(per_class.tolist()), accuracy)


def measure_iou(dataset: SegmentationDataset, predict: Callable[[Sample], Tensor]) -> IoU:
    """IoU of the (H, W) labels that ``predict`` gives; the processes of a run share the samples."""
    meter = IoUMeter(dataset.class_names)
    for index in range(rank(), len(dataset), world_size()):
        sample = dataset[index]
        meter.update(predict(sample), torch.tensor(sample.labels))
    return meter.compute_shared()


def boundary_band(labels: Tensor, width: int) -> Tensor:
    """(H, W) mask of the pixels less than ``width`` pixels (chessboard) from a label boundary.

    The trimap on which dense-CRF papers measure boundaries (Kohli et al. 2009); the void rim
    that annotators leave between two classes counts as a boundary.
    """
    edge = torch.zeros(labels.shape)
    vertical, horizontal = labels[1:] != labels[:-1], labels[:, 1:] != labels[:, :-1]
    for mask, before, after in (
        (vertical, (slice(None, -1), slice(None)), (slice(1, None), slice(None))),
        (horizontal, (slice(None), slice(None, -1)), (slice(None), slice(1, None))),
    ):
        edge[before] = torch.maximum(edge[before], mask.float())
        edge[after] = torch.maximum(edge[after], mask.float())
    reach = width - 1
    grown = F.max_pool2d(edge[None], 2 * reach + 1, stride=1, padding=reach)[0]
    return grown > 0
