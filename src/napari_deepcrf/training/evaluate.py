"""Intersection over union of a joint model on a dataset, each image at its own resolution."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from napari_deepcrf.data.samples import SegmentationDataset
from napari_deepcrf.models.deepcrf import DeepCRF
from napari_deepcrf.training.metrics import IoU, IoUMeter


@dataclass(frozen=True)
class Evaluation:
    """The network alone, and the network with the CRF behind it."""

    unary: IoU
    joint: IoU

    def table(self) -> str:
        """The per-class table (table 1 of the paper) in Markdown, in per cent."""
        lines = ["| class | unary | joint |", "|---|---:|---:|"]
        unary, joint = self.unary.as_dict(), self.joint.as_dict()
        rows = [(name, unary[name], joint[name]) for name in self.unary.class_names]
        rows.append(("**mean**", self.unary.mean, self.joint.mean))
        lines += [f"| {name} | {_percent(u)} | {_percent(j)} |" for name, u, j in rows]
        return "\n".join(lines)


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
    dataset name different classes.
    """
    if model.class_names != tuple(dataset.class_names):
        raise ValueError(
            f"model: expected the dataset's {len(dataset.class_names)} classes, "
            f"got {len(model.class_names)} ({', '.join(model.class_names[:3])}, …)"
        )
    unary, joint = IoUMeter(model.class_names), IoUMeter(model.class_names)
    device = next(model.parameters()).device
    model.eval()
    for index in range(len(dataset)):
        sample = dataset[index]
        image = torch.from_numpy(sample.image.copy()).permute(2, 0, 1)[None].float().to(device)
        truth = torch.from_numpy(sample.labels.copy())[None]
        scores = model.unary(image)
        unary.update(scores.argmax(1), truth)
        joint.update(model.crf(scores, image).argmax(1), truth)
        if on_progress is not None:
            on_progress(index + 1, len(dataset))
    return Evaluation(unary.compute(), joint.compute())
