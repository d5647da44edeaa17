"""Stage 1: train the unary network alone (section 4.1)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_deepcrf.data.samples import VOID, Sample, SegmentationDataset
from napari_deepcrf.data.soft_labels import SoftLabels
from napari_deepcrf.models.deepcrf import DeepCRF
from napari_deepcrf.models.unary import UnaryNetwork
from napari_deepcrf.training.batches import CropBatch, crop_batches, image_tensor
from napari_deepcrf.training.config import UnaryStage
from napari_deepcrf.training.distributed import shared_mean
from napari_deepcrf.training.loop import StageTrainer, network_optimizer
from napari_deepcrf.training.metrics import IoU, measure_iou
from napari_deepcrf.training.precision import autocast


class UnaryTrainer(StageTrainer[CropBatch]):
    """Trains the network of ``model`` on crops of ``train``; see `StageTrainer`.

    ``soft`` holds a teacher's soft labels of ``train``, needed where the stage's
    ``distillation`` is positive.
    """

    stage_name = "unary"

    def __init__(
        self,
        model: DeepCRF,
        train: SegmentationDataset,
        stage: UnaryStage,
        *,
        validation: SegmentationDataset | None = None,
        soft: SoftLabels | None = None,
        folder: Path | None = None,
        seed: int = 0,
    ) -> None:
        if stage.distillation > 0 and soft is None:
            raise ValueError("soft: expected soft labels, since the stage's distillation is > 0")
        self.network, self.train, self.stage = model.network, train, stage
        self.validation, self.soft = validation, soft if stage.distillation > 0 else None
        if stage.channels_last:
            self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        super().__init__(model, model.network, stage, folder, seed)

    def make_objective(self) -> nn.Module:
        """The softmax loss of the coarse score map, enlarged."""
        return _UnaryObjective(self.network, self.stage, self.dtype)

    def make_optimizers(self) -> list[torch.optim.Optimizer]:
        """One, with the top layer's rate apart."""
        backbone = self.network.backbone
        body, top = backbone.body_parameters(), backbone.top_parameters()
        return [network_optimizer(body, top, self.stage)]

    def batches(self, start: int) -> Iterator[CropBatch]:
        """Random crops."""
        return crop_batches(
            self.train,
            self.stage,
            seed=self.seed,
            start=start,
            soft=self.soft,
            device=self.device,
        )

    def parts(self, batch: CropBatch) -> list[tuple[CropBatch, Pixels]]:
        """Micro-batches, each with the pixels of the whole batch that its loss is a share of."""
        pixels = Pixels.count(batch, self.stage.loss_stride)
        return [(part.to(self.device), pixels) for part in batch.split(self.stage.micro_batch)]

    @torch.no_grad()
    def measure(self) -> IoU | None:
        """IoU of the network alone on the validation samples."""
        if self.validation is None:
            return None
        self.network.eval()
        return measure_iou(self.validation, self._predict)

    def _predict(self, sample: Sample) -> Tensor:
        image = image_tensor(sample).to(self.device)
        with autocast(self.dtype, self.device):
            scores: Tensor = self.network(image)
        return scores.argmax(1)[0]


@dataclass(frozen=True)
class Pixels:
    """How many pixels a whole batch's loss is the mean over, per process."""

    labelled: Tensor
    """() those with a label; at least 1."""
    taught: Tensor | None
    """() those with a teacher's probabilities; at least 1."""

    @classmethod
    def count(cls, batch: CropBatch, stride: int) -> Pixels:
        """Counts over all processes: a pixel weighs the same in whichever share it is."""
        labelled = (batch.labels[:, ::stride, ::stride] != VOID).sum().float()
        taught = None if batch.soft is None else (batch.soft.sum(1) > 0.5).sum().float()
        return cls(
            shared_mean(labelled).clamp(min=1),
            None if taught is None else shared_mean(taught).clamp(min=1),
        )


class _UnaryObjective(nn.Module):
    """The loss of a micro-batch."""

    def __init__(self, network: UnaryNetwork, stage: UnaryStage, dtype: torch.dtype) -> None:
        super().__init__()
        self.network, self.stage, self.dtype = network, stage, dtype

    def forward(self, batch: CropBatch, pixels: Pixels) -> Tensor:
        images = batch.images
        if self.stage.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        with autocast(self.dtype, images.device):
            scores = self.network.coarse(images)
        return unary_loss(scores.float(), batch, self.stage, pixels)


def unary_loss(scores: Tensor, batch: CropBatch, stage: UnaryStage, pixels: Pixels) -> Tensor:
    """−log softmax at the labelled pixels, mixed with the teacher's cross-entropy.

    ``scores`` is the (B, L, h, w) score map; the loss is taken at every ``loss_stride``-th pixel
    of its bilinear enlargement to the crops' size, summed, and divided by the whole batch's
    ``pixels``.
    """
    stride = stage.loss_stride
    height, width = batch.labels.shape[-2:]
    if stride == 1:
        scores = F.interpolate(scores, (height, width), mode="bilinear", align_corners=False)
    else:
        scores = sample_scores(scores, (height, width), stride)
    log_q = F.log_softmax(scores, dim=1)
    labels = batch.labels[:, ::stride, ::stride].long()
    hard = F.nll_loss(log_q, labels, ignore_index=VOID, reduction="sum")
    hard = hard / pixels.labelled.to(hard.device)
    if batch.soft is None or pixels.taught is None:
        return hard
    teacher = -(batch.soft * log_q).sum() / pixels.taught.to(hard.device)
    return (1 - stage.distillation) * hard + stage.distillation * teacher


def sample_scores(scores: Tensor, shape: tuple[int, int], stride: int) -> Tensor:
    """What bilinear enlargement to ``shape`` gives at every ``stride``-th row and column."""
    axes = []
    for extent in shape:
        position = torch.arange(0, extent, stride, device=scores.device, dtype=scores.dtype)
        axes.append((2 * position + 1) / extent - 1)
    grid = torch.stack(torch.meshgrid(axes[1], axes[0], indexing="xy"), dim=-1)
    grid = grid.expand(scores.shape[0], -1, -1, -1)
    return F.grid_sample(scores, grid, padding_mode="border", align_corners=False)
