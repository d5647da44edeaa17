"""Stage 2: train network and CRF together (figure 3), on whole images."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from napari_deepcrf.data.samples import VOID, EvenSubset, Sample, SegmentationDataset
from napari_deepcrf.models.deepcrf import DeepCRF
from napari_deepcrf.training.batches import ImageBatch, image_batches, image_tensor
from napari_deepcrf.training.config import JointStage
from napari_deepcrf.training.loop import StageTrainer, network_optimizer
from napari_deepcrf.training.metrics import IoU, measure_iou
from napari_deepcrf.training.precision import autocast

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
        self.train, self.stage, self.validation = train, stage, validation
        super().__init__(model, model, stage, folder, seed)

    def make_objective(self) -> nn.Module:
        """The loss of one image."""
        return _JointObjective(self.model, self.dtype)

    def make_optimizers(self) -> list[torch.optim.Optimizer]:
        """The network's, as in stage 1, and Adam for the logarithms of the CRF's parameters."""
        backbone = self.model.network.backbone
        body, top = backbone.body_parameters(), backbone.top_parameters()
        crf = torch.optim.Adam(self.model.crf.parameters(), lr=self.stage.crf_learning_rate)
        return [network_optimizer(body, top, self.stage), crf]

    def batches(self, start: int) -> Iterator[ImageBatch]:
        """Whole images, which may differ in size: batches of one, ``batch_size`` to a step."""
        return image_batches(
            self.train, self.stage, seed=self.seed, start=start, device=self.device
        )

    def parts(self, batch: ImageBatch) -> list[tuple[Tensor, Tensor, int]]:
        """The images, of whose losses the batch's is the mean."""
        count = len(batch.names)
        batch = batch.to(self.device)
        pairs = zip(batch.images, batch.labels, strict=True)
        return [(image, labels, count) for image, labels in pairs]

    @torch.no_grad()
    def measure(self) -> IoU | None:
        """IoU of the joint model on the validation samples."""
        return None if self.validation is None else self._measure(self.validation)

    @torch.no_grad()
    def measure_train(self) -> IoU | None:
        """IoU of the joint model on ``measured_train`` samples, evenly spread."""
        count = self.stage.measured_train
        return self._measure(EvenSubset(self.train, count)) if count else None

    def _measure(self, dataset: SegmentationDataset) -> IoU:
        self.model.eval()
        return measure_iou(dataset, self._predict)

    def _predict(self, sample: Sample) -> Tensor:
        image = image_tensor(sample).to(self.device)
        return _marginals(self.model, image, self.dtype).argmax(1)[0]


class _JointObjective(nn.Module):
    """One image's share of the mean −log q_i(y_i) per labelled pixel (equation 6)."""

    def __init__(self, model: DeepCRF, dtype: torch.dtype) -> None:
        super().__init__()
        self.model, self.dtype = model, dtype

    def forward(self, image: Tensor, labels: Tensor, count: int) -> Tensor:
        return marginal_loss(_marginals(self.model, image, self.dtype), labels) / count


def _marginals(model: DeepCRF, image: Tensor, dtype: torch.dtype) -> Tensor:
    """(1, L, H, W) marginals: the network in mixed precision, the CRF in float32."""
    with autocast(dtype, image.device):
        scores = model.unary(image)
    marginals: Tensor = model.crf(scores.float(), image)
    return marginals


def marginal_loss(marginals: Tensor, labels: Tensor) -> Tensor:
    """Mean −log q_i(y_i) over the labelled pixels of (B, L, H, W) marginals (equation 6)."""
    labelled = labels != VOID
    index = torch.where(labelled, labels, 0).long()[:, None]
    chosen = marginals.gather(1, index)[:, 0][labelled]
    return -chosen.clamp(min=_FLOOR).log().sum() / labelled.sum().clamp(min=1)
