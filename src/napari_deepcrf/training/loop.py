"""The loop that both stages share: steps, rates, averaging, validation, resuming."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from napari_deepcrf.models.checkpoint import check_tensors
from napari_deepcrf.models.deepcrf import DeepCRF
from napari_deepcrf.training.average import WeightAverage
from napari_deepcrf.training.batches import Batch
from napari_deepcrf.training.config import StageConfig
from napari_deepcrf.training.distributed import (
    gathering,
    parallel,
    rank,
    shared_mean,
    shared_names,
    world_size,
)
from napari_deepcrf.training.events import (
    CheckpointSaved,
    Finished,
    Stage,
    StageEvent,
    StageStarted,
    StepDone,
    Validated,
)
from napari_deepcrf.training.metrics import IoU
from napari_deepcrf.training.precision import gradient_scaler, network_dtype
from napari_deepcrf.training.state import (
    optimizer_tensors,
    read_state,
    restore_optimizer,
    under_prefix,
    with_prefix,
    write_state,
)

BatchT = TypeVar("BatchT", bound=Batch)

_LEAST_SCALE = 2.0**-10
"""A loss scaled down to this and still too large for float16 gradients has diverged."""


class TrainingDivergedError(RuntimeError):
    """The loss or its gradient is not finite; the weights are those before the bad batch."""


class StageTrainer(ABC, Generic[BatchT]):
    """Trains ``module``, a part of ``model``, in place; iterate over `events` to make it happen.

    Closing the generator cancels. Either way `restore_best` then puts the best weights so far
    into the module: those of the best validation, or the latest where nothing validates.

    Parameters
    ----------
    folder
        Where ``STAGE-last.safetensors`` (everything needed to resume) and
        ``STAGE-best.safetensors`` (the best model so far, for `DeepCRF.load`) are written;
        ``None`` keeps nothing. A run whose folder holds a state continues from it, to the very
        same losses.
    """

    stage_name: Stage

    def __init__(
        self,
        model: DeepCRF,
        module: nn.Module,
        stage: StageConfig,
        folder: Path | None,
        seed: int,
    ) -> None:
        if stage.batch_size % world_size():
            raise ValueError(
                f"batch_size: expected a multiple of the {world_size()} processes, "
                f"got {stage.batch_size}"
            )
        self.model, self.module, self.folder, self.seed = model, module, folder, seed
        self._common = stage
        self.device = next(module.parameters()).device
        self.dtype = network_dtype(stage.precision, self.device)
        self.objective = parallel(self.make_objective())
        self.average = WeightAverage(module, stage.average)
        self.scaler = gradient_scaler(self.dtype, self.device)
        self.optimizers = self.make_optimizers()
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["base_lr"] = group["lr"]
        self.step = 0
        self.best_step, self.best_mean_iou = 0, float("-inf")
        self.best = self.average.state()

    @abstractmethod
    def make_objective(self) -> nn.Module:
        """The module that gives the loss of a part of a batch, see `parts`."""

    @abstractmethod
    def make_optimizers(self) -> list[torch.optim.Optimizer]:
        """Optimisers over all parameters that learn."""

    @abstractmethod
    def batches(self, start: int) -> Iterator[BatchT]:
        """The present process's share of the batches from step ``start`` to the stage's last."""

    @abstractmethod
    def parts(self, batch: BatchT) -> Sequence[tuple[Any, ...]]:
        """What the objective takes for each part of a batch, whose losses add up to the batch's."""

    @abstractmethod
    def measure(self) -> IoU | None:
        """IoU of the module as it is on the validation samples; ``None`` without any."""

    def measure_train(self) -> IoU | None:
        """IoU on some training samples, where the stage asks for it."""
        return None

    def events(self) -> Generator[StageEvent]:
        """Train to the stage's last step, yielding what happens."""
        stage = self._common
        self._resume()
        yield StageStarted(self.stage_name, self.step, stage.iterations)
        if self.step == 0:
            yield from self._validate()
        for batch in self.batches(self.step):
            try:
                yield self._train_step(batch)
            except TrainingDivergedError:
                yield from self._save()
                raise
            last = self.step == stage.iterations
            if last or self.step % stage.validate_every == 0:
                yield from self._validate()
            if last or self.step % stage.checkpoint_every == 0:
                yield from self._save()
        best = (self.best_step, self.best_mean_iou) if self._validated else (self.step, None)
        yield Finished(self.stage_name, self.step, *best)

    def restore_best(self) -> None:
        """Put the best weights so far into the module."""
        self.module.load_state_dict(self.best if self._validated else self.average.state())

    @property
    def _validated(self) -> bool:
        return self.best_mean_iou > float("-inf")

    def _train_step(self, batch: BatchT) -> StepDone:
        started = time.perf_counter()
        factor = self._common.rate_factor(self.step)
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
            for group in optimizer.param_groups:
                group["lr"] = group["base_lr"] * factor
        torch.manual_seed(hash((self.seed, self.step, rank())))  # dropout, the same after a resume
        self.module.train()
        statistics = {name: value.clone() for name, value in self.module.named_buffers()}
        loss = float(shared_mean(self.backward(batch)))
        for optimizer in self.optimizers:
            self.scaler.unscale_(optimizer)
        limit = float("inf") if self._common.clip_norm is None else self._common.clip_norm
        norm = float(nn.utils.clip_grad_norm_(self.module.parameters(), limit))
        if self._diverged(loss, norm):
            for name, value in self.module.named_buffers():
                value.copy_(statistics[name])
            raise TrainingDivergedError(
                f"loss {loss} with gradient norm {norm} at step {self.step + 1} of the "
                f"{self.stage_name} stage, batch {', '.join(shared_names(batch.names))}"
            )
        for optimizer in self.optimizers:
            self.scaler.step(optimizer)  # unless float16 gradients overflowed
        self.scaler.update()
        self.step += 1
        self.average.update()
        return StepDone(
            stage=self.stage_name,
            step=self.step,
            iterations=self._common.iterations,
            loss=loss,
            learning_rate=self.optimizers[0].param_groups[0]["lr"],
            seconds=time.perf_counter() - started,
            names=shared_names(batch.names),
        )

    def backward(self, batch: BatchT) -> Tensor:
        """The loss of this process's share of a batch, its gradients in the parameters."""
        parts = self.parts(batch)
        total = torch.zeros((), device=self.device)
        for number, part in enumerate(parts, start=1):
            with gathering(self.objective, last=number == len(parts)):
                loss = self.objective(*part)
                self.scaler.scale(loss).backward()
            total += loss.detach()
        return total

    def _diverged(self, loss: float, norm: float) -> bool:
        """Overflowing float16 gradients only skip their step, as long as a lower scale can help."""
        if self.scaler.is_enabled() and self.scaler.get_scale() > _LEAST_SCALE:
            norm = 0.0
        return not abs(loss) + norm < float("inf")

    def _validate(self) -> Iterator[Validated]:
        with self.average.applied():
            iou = self.measure()
            if iou is None:
                return
            train = self.measure_train()
            improved = iou.mean > self.best_mean_iou
            if improved and self.folder is not None and rank() == 0:
                self.model.save(self.folder / f"{self.stage_name}-best.safetensors")
        if improved:
            self.best_step, self.best_mean_iou = self.step, iou.mean
            self.best = self.average.state()
        yield Validated(
            self.stage_name,
            self.step,
            iou.mean,
            iou.present(),
            improved,
            None if train is None else train.mean,
        )

    def _save(self) -> Iterator[CheckpointSaved]:
        if self.folder is None or rank() > 0:
            return
        path = state_path(self.folder, self.stage_name)
        tensors = {
            **with_prefix("network", self.module.state_dict()),
            **with_prefix("average", self.average.state()),
            **with_prefix("best", self.best),
        }
        for number, optimizer in enumerate(self.optimizers):
            name = "optimizer" if number == 0 else f"optimizer{number}"
            tensors |= with_prefix(name, optimizer_tensors(optimizer))
        values: dict[str, Any] = {"step": self.step, "best_step": self.best_step}
        values["best_mean_iou"] = self.best_mean_iou if self._validated else None
        values["scaler"] = self.scaler.state_dict()
        write_state(path, tensors, values)
        yield CheckpointSaved(self.stage_name, self.step, path)

    def _resume(self) -> None:
        if self.folder is None:
            return
        path = state_path(self.folder, self.stage_name)
        if not path.is_file():
            return
        tensors, values = read_state(path)
        check_tensors(path, self.module, under_prefix("network", tensors))
        self.module.load_state_dict(under_prefix("network", tensors))
        self.average.load(under_prefix("average", tensors), updates=values["step"])
        self.best = under_prefix("best", tensors)
        for number, optimizer in enumerate(self.optimizers):
            name = "optimizer" if number == 0 else f"optimizer{number}"
            restore_optimizer(optimizer, under_prefix(name, tensors))
        if values.get("scaler"):
            self.scaler.load_state_dict(values["scaler"])
        self.step, self.best_step = values["step"], values["best_step"]
        if values["best_mean_iou"] is not None:
            self.best_mean_iou = values["best_mean_iou"]


def state_path(folder: Path, stage: Stage) -> Path:
    """The file from which a run goes on with a stage."""
    return folder / f"{stage}-last.safetensors"


def network_optimizer(
    body: list[nn.Parameter], top: list[nn.Parameter], stage: StageConfig
) -> torch.optim.Optimizer:
    """Two groups: everything below, and the replaced top layer at its own rate."""
    groups = [
        {"params": body, "lr": stage.learning_rate},
        {"params": top, "lr": stage.top_learning_rate},
    ]
    if stage.optimizer == "sgd":
        return torch.optim.SGD(groups, momentum=stage.momentum, weight_decay=stage.weight_decay)
    return torch.optim.AdamW(groups, weight_decay=stage.weight_decay)
