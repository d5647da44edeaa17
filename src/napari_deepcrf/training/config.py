"""What a training run may vary: one frozen, keyword-only dataclass per stage."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from napari_deepcrf.data.transforms import Augmentation

Precision = Literal["float32", "bfloat16"]


@dataclass(frozen=True, kw_only=True)
class UnaryStage:
    """Stage 1: the network alone, on crops, with the softmax loss (section 4.1)."""

    iterations: int = 4000
    batch_size: int = 20
    copy_size: int | None = 306
    """Longer side of the images that crops are taken from; ``None``: original resolution."""
    augmentation: Augmentation = field(default_factory=Augmentation)
    optimizer: Literal["sgd", "adamw"] = "sgd"
    learning_rate: float = 0.001
    top_learning_rate: float = 0.01
    """Rate of the replaced top layer."""
    momentum: float = 0.9
    weight_decay: float = 0.0005
    warmup: int = 0
    """Steps over which the rate rises linearly from zero."""
    decay: int = 0
    """Last steps, over which the rate falls linearly to zero; constant before them, so that a
    run can be lengthened or cut short without changing what was done so far."""
    average: float = 0.0
    """Decay of the exponential moving average of the weights; 0 uses the weights themselves."""
    loss_stride: int = 1
    """The loss looks at every n-th pixel in both directions."""
    distillation: float = 0.0
    """Weight of the teacher's term in the loss, for datasets that carry soft labels."""
    clip_norm: float = 10.0
    precision: Precision = "float32"
    channels_last: bool = False
    workers: int = 0
    validate_every: int = 500
    checkpoint_every: int = 500

    def __post_init__(self) -> None:
        _positive(self, "iterations", "batch_size", "learning_rate", "top_learning_rate")
        _positive(self, "loss_stride", "clip_norm", "validate_every", "checkpoint_every")
        for name in ("momentum", "weight_decay", "warmup", "decay", "average", "workers"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}: expected at least 0, got {getattr(self, name)}")
        if self.average >= 1 or not 0 <= self.distillation <= 1:
            raise ValueError(
                "average and distillation: expected fractions of 1, got "
                f"{self.average} and {self.distillation}"
            )

    def rate_factor(self, step: int) -> float:
        """The share of the learning rate that ``step`` (0 is the first) uses."""
        rise = min(1.0, (step + 1) / self.warmup) if self.warmup else 1.0
        fall = min(1.0, (self.iterations - step) / self.decay) if self.decay else 1.0
        return rise * fall


def _positive(config: object, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        if not value > 0:
            raise ValueError(f"{name}: expected a positive number, got {value}")


def to_dict(config: Any) -> dict[str, Any]:
    """A configuration as nested plain values, for JSON."""
    return asdict(config)
