"""Intersection over union of a joint model on a dataset, each image at its own resolution."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import torch

from napari_deepcrf.data.samples import VOID, DatasetError, SegmentationDataset, check_sample
from napari_deepcrf.models.deepcrf import DeepCRF
from napari_deepcrf.training.batches import image_tensor
from napari_deepcrf.training.metrics import IoU, IoUMeter, boundary_band


@dataclass(frozen=True)
class Evaluation:
    """The network alone, and the network with the CRF behind it."""

    unary: IoU
    joint: IoU
    unary_boundary: IoU
    """Only pixels of the band around the true boundaries, see `boundary_band`."""
    joint_boundary: IoU

    def table(self) -> str:
        """The per-class table (table 1 of the paper) in Markdown, in per cent."""
        lines = ["| class | unary | joint |", "|---|---:|---:|"]
        unary, joint = self.unary.as_dict(), self.joint.as_dict()
        rows = [(name, unary[name], joint[name]) for name in self.unary.class_names]
        rows.append(("**mean**", self.unary.mean, self.joint.mean))
        rows.append(("mean near boundaries", self.unary_boundary.mean, self.joint_boundary.mean))
        lines += [f"| {name} | {_percent(u)} | {_percent(j)} |" for name, u, j in rows]
        return "\n".join(lines)


def _percent(value: float) -> str:
    return "–" if value != value else f"{100 * value:.1f}"


@torch.inference_mode()
def evaluate(
    model: DeepCRF,
    dataset: SegmentationDataset,
    *,
    boundary_width: int = 5,
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
    device = next(model.parameters()).device
    model.eval()
    for index in range(len(dataset)):
        sample = dataset[index]
        problem = check_sample(sample, len(model.class_names))
        if problem is not None:
            raise DatasetError("dataset", [problem])
        image = image_tensor(sample).to(device)
        truth = torch.tensor(sample.labels)
        near = torch.where(boundary_band(truth, boundary_width), truth, VOID)
        scores = model.unary(image)
        labels = scores.argmax(1)[0], model.crf(scores, image).argmax(1)[0]
        for number, (predicted, target) in enumerate(product(labels, (truth, near))):
            meters[number].update(predicted, target)
        if on_progress is not None:
            on_progress(index + 1, len(dataset))
    unary, unary_boundary, joint, joint_boundary = (meter.compute() for meter in meters)
    return Evaluation(unary, joint, unary_boundary, joint_boundary)
