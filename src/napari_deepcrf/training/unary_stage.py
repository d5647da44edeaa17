"""Stage 1: train the unary network alone (section 4.1)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from napari_deepcrf.data.samples import VOID, SegmentationDataset
from napari_deepcrf.data.soft_labels import SoftLabels
from napari_deepcrf.models.unary import UnaryNetwork
from napari_deepcrf.training.batches import CropBatch, crop_batches, image_tensor
from napari_deepcrf.training.config import UnaryStage
from napari_deepcrf.training.distributed import shared_mean
from napari_deepcrf.training.loop import StageTrainer, network_optimizer
from napari_deepcrf.training.metrics import IoU, IoUMeter


class UnaryTrainer(StageTrainer[CropBatch]):
    """Trains ``network`` on crops of ``train``; see `StageTrainer`.

    ``soft`` holds a teacher's soft labels of ``train``, needed where the stage's
    ``distillation`` is positive.
    """

    stage_name = "unary"

    def __init__(
        self,
        network: UnaryNetwork,
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
        self.network, self.train, self.stage = network, train, stage
        self.validation, self.soft = validation, soft if stage.distillation > 0 else None
        super().__init__(network, stage, folder, seed)
        if stage.channels_last:
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def make_optimizers(self) -> list[torch.optim.Optimizer]:
        """One, with the top layer's rate apart."""
        backbone = self.network.backbone
        body, top = backbone.body_parameters(), backbone.top_parameters()
        return [network_optimizer(body, top, self.stage)]

    def batches(self, start: int) -> Iterator[CropBatch]:
        """Random crops."""
        return crop_batches(self.train, self.stage, seed=self.seed, start=start, soft=self.soft)

    def backward(self, batch: CropBatch) -> Tensor:
        """Cross-entropy with the labels, mixed with the teacher's."""
        device = next(self.network.parameters()).device
        images = batch.images.to(device)
        if self.stage.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        with _autocast(self.stage, device):
            scores = self.network.coarse(images)
        loss = unary_loss(scores.float(), batch, self.stage)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    @torch.no_grad()
    def measure(self) -> IoU | None:
        """IoU of the network alone on the validation samples."""
        if self.validation is None:
            return None
        meter = IoUMeter(self.validation.class_names)
        device = next(self.network.parameters()).device
        self.network.eval()
        for index in range(len(self.validation)):
            sample = self.validation[index]
            with _autocast(self.stage, device):
                scores = self.network(image_tensor(sample).to(device))
            meter.update(scores.argmax(1), torch.tensor(sample.labels)[None])
        return meter.compute()


def unary_loss(scores: Tensor, batch: CropBatch, stage: UnaryStage) -> Tensor:
    """Mean −log softmax at the labelled pixels, mixed with the teacher's cross-entropy.

    ``scores`` is the (B, L, h, w) score map; the loss is taken at every ``loss_stride``-th pixel
    of its bilinear enlargement to the crops' size.
    """
    stride = stage.loss_stride
    height, width = batch.labels.shape[-2:]
    if stride == 1:
        scores = F.interpolate(scores, (height, width), mode="bilinear", align_corners=False)
    else:
        scores = sample_scores(scores, (height, width), stride)
    log_q = F.log_softmax(scores, dim=1)
    labels = batch.labels[:, ::stride, ::stride].long().to(scores.device)
    # Counts over all processes: a pixel weighs the same in whichever share it is.
    labelled = shared_mean((labels != VOID).sum().float()).clamp(min=1)
    hard = F.nll_loss(log_q, labels, ignore_index=VOID, reduction="sum") / labelled
    if batch.soft is None:
        return hard
    soft = batch.soft.to(scores.device)
    inside = shared_mean((soft.sum(1) > 0.5).sum().float()).clamp(min=1)
    teacher = -(soft * log_q).sum() / inside
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


def _autocast(stage: UnaryStage, device: torch.device) -> torch.autocast:
    return torch.autocast(device.type, torch.bfloat16, enabled=stage.precision == "bfloat16")
