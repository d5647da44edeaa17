"""Stage 1: train the unary network alone (section 4.1), as a generator of events."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_deepcrf.data.samples import VOID, SegmentationDataset
from napari_deepcrf.data.soft_labels import SoftLabels
from napari_deepcrf.models.vgg16 import UnaryNetwork
from napari_deepcrf.training.average import WeightAverage
from napari_deepcrf.training.batches import Batch, batches
from napari_deepcrf.training.config import UnaryStage
from napari_deepcrf.training.events import (
    CheckpointSaved,
    Event,
    Finished,
    StageStarted,
    StepDone,
    Validated,
)
from napari_deepcrf.training.metrics import IoU, IoUMeter
from napari_deepcrf.training.state import (
    optimizer_tensors,
    read_state,
    restore_optimizer,
    under_prefix,
    with_prefix,
    write_state,
)


class TrainingDivergedError(RuntimeError):
    """The loss or its gradient is not finite; the weights are those before the bad batch."""


class UnaryTrainer:
    """Trains ``network`` in place.

    Parameters
    ----------
    folder
        Where ``unary-last.safetensors`` (everything needed to resume) and
        ``unary-best.safetensors`` (the best weights so far) are written; ``None`` keeps nothing.
    soft
        A teacher's soft labels of ``train``, used where the stage's ``distillation`` is positive.

    Iterating over `events` trains; closing the generator cancels, `restore_best` then puts the
    best weights so far into the network. A run whose folder holds a state continues from it.
    """

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
        self.folder, self.seed = folder, seed
        self.optimizer = make_optimizer(network, stage)
        self.average = WeightAverage(network, stage.average)
        self.step = 0
        self.best_step, self.best_mean_iou = 0, float("-inf")
        self.best = self.average.state()

    def events(self) -> Iterator[Event]:
        """Train to the stage's last step, yielding what happens."""
        stage = self.stage
        self._resume()
        yield StageStarted("unary", self.step, stage.iterations)
        if stage.channels_last:
            self.network.to(memory_format=torch.channels_last)
        for batch in batches(
            self.train, stage, seed=self.seed, start=self.step, soft=self.soft
        ):
            yield self._train_step(batch)
            last = self.step == stage.iterations
            if self.validation is not None and (last or self.step % stage.validate_every == 0):
                yield self._validate()
            if self.folder is not None and (last or self.step % stage.checkpoint_every == 0):
                yield self._save()
        if self.validation is None:
            self.best_step, self.best = self.step, self.average.state()
        yield Finished("unary", self.step, self.best_step, self.best_mean_iou)

    def restore_best(self) -> None:
        """Put the best weights so far into the network."""
        self.network.load_state_dict(self.best)

    def _train_step(self, batch: Batch) -> StepDone:
        started = time.perf_counter()
        stage = self.stage
        factor = stage.rate_factor(self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = group["base_lr"] * factor
        torch.manual_seed(hash((self.seed, self.step)))  # dropout, the same after a resume
        self.network.train()
        device = next(self.network.parameters()).device
        images = batch.images.to(device, non_blocking=True)
        if stage.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        with torch.autocast(
            device.type, torch.bfloat16, enabled=stage.precision == "bfloat16"
        ):
            scores = self.network.coarse(images)
        loss = stage_loss(scores.float(), batch, stage)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), stage.clip_norm)
        if not (torch.isfinite(loss) and torch.isfinite(norm)):
            raise TrainingDivergedError(
                f"loss {float(loss)} with gradient norm {float(norm)} at step {self.step + 1}, "
                f"batch {', '.join(batch.names)}"
            )
        self.optimizer.step()
        self.step += 1
        self.average.update()
        rate = self.optimizer.param_groups[0]["lr"]
        seconds = time.perf_counter() - started
        return StepDone(
            "unary", self.step, stage.iterations, float(loss), rate, seconds, batch.names
        )

    def _validate(self) -> Validated:
        assert self.validation is not None
        with self.average.applied():
            iou = evaluate_network(self.network, self.validation, self.stage)
        improved = iou.mean > self.best_mean_iou
        if improved:
            self.best_step, self.best_mean_iou = self.step, iou.mean
            self.best = self.average.state()
            if self.folder is not None:
                values = {"step": self.step, "mean_iou": iou.mean}
                write_state(self.folder / "unary-best.safetensors", self.best, values)
        return Validated("unary", self.step, iou.mean, iou.as_dict(), improved)

    def _save(self) -> CheckpointSaved:
        assert self.folder is not None
        path = self.folder / "unary-last.safetensors"
        tensors = {
            **with_prefix("network", self.network.state_dict()),
            **with_prefix("average", self.average.state()),
            **with_prefix("best", self.best),
            **with_prefix("optimizer", optimizer_tensors(self.optimizer)),
        }
        write_state(path, tensors, self._progress())
        return CheckpointSaved("unary", self.step, path)

    def _progress(self) -> dict[str, Any]:
        best = self.best_mean_iou if self.best_step else None
        return {"step": self.step, "best_step": self.best_step, "best_mean_iou": best}

    def _resume(self) -> None:
        path = None if self.folder is None else self.folder / "unary-last.safetensors"
        if path is None or not path.is_file():
            return
        tensors, values = read_state(path)
        self.network.load_state_dict(under_prefix("network", tensors))
        self.average.load(under_prefix("average", tensors))
        self.best = under_prefix("best", tensors)
        restore_optimizer(self.optimizer, under_prefix("optimizer", tensors))
        self.step, self.best_step = values["step"], values["best_step"]
        if values["best_mean_iou"] is not None:
            self.best_mean_iou = values["best_mean_iou"]


def make_optimizer(network: UnaryNetwork, stage: UnaryStage) -> torch.optim.Optimizer:
    """Two groups: the replaced top layer at its own rate, and everything below."""
    groups = [
        {"params": network.backbone.body_parameters(), "lr": stage.learning_rate},
        {"params": network.backbone.top_parameters(), "lr": stage.top_learning_rate},
    ]
    for group in groups:
        group["base_lr"] = group["lr"]
    if stage.optimizer == "sgd":
        return torch.optim.SGD(
            groups, momentum=stage.momentum, weight_decay=stage.weight_decay
        )
    return torch.optim.AdamW(groups, weight_decay=stage.weight_decay)


def stage_loss(scores: Tensor, batch: Batch, stage: UnaryStage) -> Tensor:
    """Mean −log softmax at the labelled pixels, mixed with the teacher's cross-entropy."""
    stride = stage.loss_stride
    labels = batch.labels[:, ::stride, ::stride].long().to(scores.device)
    # Bilinear enlargement as the network does it, then every n-th pixel of the result.
    height, width = batch.labels.shape[-2:]
    if stride == 1:
        scores = F.interpolate(scores, (height, width), mode="bilinear", align_corners=False)
    else:
        scores = sample_scores(scores, (height, width), stride)
    log_q = F.log_softmax(scores, dim=1)
    hard = F.nll_loss(log_q, labels, ignore_index=VOID)
    if batch.soft is None:
        return hard
    soft = batch.soft.to(scores.device)
    inside = (soft.sum(1) > 0.5).sum().clamp(min=1)
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


@torch.no_grad()
def evaluate_network(
    network: UnaryNetwork, dataset: SegmentationDataset, stage: UnaryStage
) -> IoU:
    """IoU of the network alone on a dataset, each image at its stored resolution."""
    meter = IoUMeter(dataset.class_names)
    device = next(network.parameters()).device
    was_training = network.training
    network.eval()
    for index in range(len(dataset)):
        sample = dataset[index]
        image = torch.from_numpy(sample.image.copy()).permute(2, 0, 1)[None].float().to(device)
        with torch.autocast(
            device.type, torch.bfloat16, enabled=stage.precision == "bfloat16"
        ):
            scores = network(image)
        meter.update(scores.argmax(1), torch.from_numpy(sample.labels.copy())[None])
    network.train(was_training)
    return meter.compute()
