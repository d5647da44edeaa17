"""Stage 2: train network and CRF together (figure 3), on whole images."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from napari_deepcrf.data.samples import VOID, SegmentationDataset
from napari_deepcrf.models.deepcrf import DeepCRF
from napari_deepcrf.training.batches import ImageBatch, image_batches, image_tensor
from napari_deepcrf.training.config import JointStage
from napari_deepcrf.training.loop import StageTrainer, network_optimizer
from napari_deepcrf.training.metrics import IoU, IoUMeter

# Marginals below this give no gradient: single pixels that the model is certain about, wrongly,
# would otherwise outweigh the rest of the image.
_FLOOR = 1e-6


class JointTrainer(StageTrainer[ImageBatch]):
    """Trains all parameters of ``model`` on images of ``train``; see `StageTrainer`."""

    stage_name = "joint"

    def __init__(
        self,
        model: DeepCRF,
        train: SegmentationDataset,
        stage: JointStage,
        *,
        validation: SegmentationDataset | None = None,
        folder: Path | None = None,
        seed: int = 0,
    ) -> None:
        self.model, self.train, self.stage, self.validation = model, train, stage, validation
        super().__init__(model, stage, folder, seed)

    def make_optimizers(self) -> list[torch.optim.Optimizer]:
        """The network's, as in stage 1, and Adam for the logarithms of the CRF's parameters."""
        backbone = self.model.network.backbone
        body, top = backbone.body_parameters(), backbone.top_parameters()
        crf = torch.optim.Adam(self.model.crf.parameters(), lr=self.stage.crf_learning_rate)
        return [network_optimizer(body, top, self.stage), crf]

    def batches(self, start: int) -> Iterator[ImageBatch]:
        """Whole images, which may differ in size: batches of one, ``batch_size`` to a step."""
        return image_batches(self.train, self.stage, seed=self.seed, start=start)

    def backward(self, batch: ImageBatch) -> Tensor:
        """Mean over the images of −log q_i(y_i) per labelled pixel (equation 6)."""
        device = next(self.model.parameters()).device
        total = torch.zeros(())
        for image, labels in zip(batch.images, batch.labels, strict=True):
            marginals = self.model(image.to(device))
            loss = marginal_loss(marginals, labels.to(device)) / len(batch.names)
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.detach().cpu()
        return total

    @torch.no_grad()
    def measure(self) -> IoU | None:
        """IoU of the joint model on the validation samples."""
        if self.validation is None:
            return None
        meter = IoUMeter(self.validation.class_names)
        device = next(self.model.parameters()).device
        self.model.eval()
        for index in range(len(self.validation)):
            sample = self.validation[index]
            marginals = self.model(image_tensor(sample).to(device))
            meter.update(marginals.argmax(1), torch.tensor(sample.labels)[None])
        return meter.compute()


def marginal_loss(marginals: Tensor, labels: Tensor) -> Tensor:
    """Mean −log q_i(y_i) over the labelled pixels of (B, L, H, W) marginals (equation 6)."""
    labelled = labels != VOID
    index = torch.where(labelled, labels, 0).long()[:, None]
    chosen = marginals.gather(1, index)[:, 0][labelled]
    return -chosen.clamp(min=_FLOOR).log().sum() / labelled.sum().clamp(min=1)
