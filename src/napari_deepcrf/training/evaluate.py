"""Intersection over union of a joint model on a dataset, each image at its own resolution."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

from napari_deepcrf.data.samples import VOID, DatasetError, SegmentationDataset, check_sample
from napari_deepcrf.models.deepcrf import DeepCRF
from napari_deepcrf.training.batches import image_tensor
from napari_deepcrf.training.metrics import IoU, IoUMeter, boundary_band

BOUNDARY_WIDTH = 5
"""Pixels on either side of a true boundary."""


@dataclass(frozen=True)
class Evaluation:
    """The network alone, and the network with the CRF behind it."""

    unary: IoU
    joint: IoU
    unary_boundary: IoU
    """Only pixels of the band around the true boundaries, see `boundary_band`."""
    joint_boundary: IoU
    per_image: tuple[float, ...]
    """The joint model's mean IoU on every image, over the classes that occur there."""

    def table(self) -> str:
        """The per-class table (table 1 of the paper) in Markdown, in per cent.

        The last two columns are the figures within the band around the true boundaries.
        """
        rows = [f"| {name} | {' | '.join(map(_percent, row))} |" for name, *row in self.rows()]
        rows[-1] = rows[-1].replace("mean", "**mean**", 1)
        head = f"| class | {' | '.join(COLUMNS)} |"
        return "\n".join([head, "|---|" + "---:|" * len(COLUMNS), *rows])

    def csv(self) -> str:
        """The same table as comma-separated values, in fractions; an absent class has ``nan``."""
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["class", *COLUMNS])
        for name, *row in self.rows():
            writer.writerow([name, *(f"{value:.6f}" for value in row)])
        return stream.getvalue()

    def rows(self) -> Iterator[tuple[str, float, float, float, float]]:
        """Each class's name and figures in the order of `COLUMNS`, then those of the mean."""
        figures = (self.unary, self.joint, self.unary_boundary, self.joint_boundary)
        yield from zip(self.unary.class_names, *(iou.per_class for iou in figures), strict=True)
        unary, joint, unary_boundary, joint_boundary = (iou.mean for iou in figures)
        yield "mean", unary, joint, unary_boundary, joint_boundary


COLUMNS = ("unary", "joint", "unary, near boundaries", "joint, near boundaries")


def _percent(value: float) -> str:
    return "–" if value != value else f"{100 * value:.1f}"


@torch.inference_mode()
def evaluate(
    model: DeepCRF,
    dataset: SegmentationDataset,
    *,
    on_progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Figures of a model on every sample of a dataset, void pixels left out.

    ``on_progress`` is called with (images done, images in all). Raises ValueError where model and
    dataset name different classes, and for a sample whose labels do not fit its image or classes.
    """
    if model.class_names != tuple(dataset.class_names):
        raise ValueError(
            f"model: expected the dataset's {len(dataset.class_names)} classes, "
            f"got {len(model.class_names)} ({', '.join(model.class_names[:3])}, …)"
        )
    meters = [IoUMeter(model.class_names) for _ in range(4)]
    per_image = []
    device = next(model.parameters()).device
    model.eval()
    for index in range(len(dataset)):
        sample = dataset[index]
        problem = check_sample(sample, len(model.class_names))
        if problem is not None:
            raise DatasetError("dataset", [problem])
        image = image_tensor(sample).to(device)
        truth = torch.tensor(sample.labels)
        near = torch.where(boundary_band(truth, BOUNDARY_WIDTH), truth, VOID)
        scores = model.unary(image)
        labels = scores.argmax(1)[0], model.crf(scores, image).argmax(1)[0]
        per_image.append(_mean_iou(labels[1], truth, model.class_names))
        for number, (predicted, target) in enumerate(product(labels, (truth, near))):
            meters[number].update(predicted, target)
        if on_progress is not None:
            on_progress(index + 1, len(dataset))
    unary, unary_boundary, joint, joint_boundary = (meter.compute() for meter in meters)
    return Evaluation(unary, joint, unary_boundary, joint_boundary, tuple(per_image))


def _mean_iou(predicted: Tensor, truth: Tensor, class_names: tuple[str, ...]) -> float:
    meter = IoUMeter(class_names)
    meter.update(predicted, truth)
    return meter.compute().mean
