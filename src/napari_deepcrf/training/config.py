"""What a training run may vary: frozen, keyword-only dataclasses, and the named recipes."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from napari_deepcrf.crf import CRFParameters
from napari_deepcrf.data.transforms import Augmentation

Precision = Literal["float32", "bfloat16"]


@dataclass(frozen=True, kw_only=True)
class StageConfig:
    """What both stages have in common."""

    iterations: int
    batch_size: int
    optimizer: Literal["sgd", "adamw"] = "sgd"
    learning_rate: float = 0.001
    """Rate of the network below the top layer."""
    top_learning_rate: float = 0.01
    """Rate of the replaced top layer."""
    momentum: float = 0.9
    weight_decay: float = 0.0005
    warmup: int = 0
    """Steps over which the rates rise linearly from zero."""
    decay: int = 0
    """Last steps, over which the rates fall linearly to zero; constant before them, so that a
    run can be lengthened or cut short without changing what was done so far."""
    average: float = 0.0
    """Decay of the exponential moving average of the weights; 0 uses the weights themselves."""
    clip_norm: float = 10.0
    """Largest norm of the gradient; a longer one is shortened to it."""
    validate_every: int = 500
    checkpoint_every: int = 500

    def __post_init__(self) -> None:
        for name in (
            "iterations",
            "batch_size",
            "learning_rate",
            "top_learning_rate",
            "clip_norm",
            "validate_every",
            "checkpoint_every",
        ):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}: expected a positive number, got {getattr(self, name)}")
        for name in ("momentum", "weight_decay", "warmup", "decay"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}: expected at least 0, got {getattr(self, name)}")
        _fraction("average", self.average, below=1.0)

    def rate_factor(self, step: int) -> float:
        """The share of the learning rates that ``step`` (0 is the first) uses."""
        rise = min(1.0, (step + 1) / self.warmup) if self.warmup else 1.0
        fall = min(1.0, (self.iterations - step) / self.decay) if self.decay else 1.0
        return rise * fall


@dataclass(frozen=True, kw_only=True)
class UnaryStage(StageConfig):
    """Stage 1: the network alone, on crops, with the softmax loss (section 4.1)."""

    iterations: int = 4000
    batch_size: int = 20
    copy_size: int | None = 306
    """Longer side of the images that crops are taken from; ``None``: original resolution."""
    augmentation: Augmentation = field(default_factory=Augmentation)
    loss_stride: int = 1
    """The loss looks at every n-th pixel in both directions."""
    distillation: float = 0.0
    """Share of the teacher's term in the loss, for runs with soft labels."""
    precision: Precision = "float32"
    channels_last: bool = False
    workers: int = 0
    """Processes that prepare batches; 0 prepares them between the steps."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.loss_stride < 1 or self.workers < 0:
            raise ValueError(
                "loss_stride and workers: expected at least 1 and 0, got "
                f"{self.loss_stride} and {self.workers}"
            )
        _fraction("distillation", self.distillation)


@dataclass(frozen=True, kw_only=True)
class JointStage(StageConfig):
    """Stage 2: network and CRF together, on whole images (figure 3, section 4.1)."""

    iterations: int = 20
    batch_size: int = 20
    copy_size: int | None = None
    """Longer side of the images; ``None``: the loss is taken at the original resolution, which the
    CRF's widths, in pixels, belong to."""
    crf_learning_rate: float = 0.01
    """Rate of the logarithms of the CRF's weights and widths, always by Adam: the paper gives
    none, and Adam's step is a relative change of about this size whatever the loss's scale."""
    flip: bool = True
    """Whether half of the images are mirrored."""
    validate_every: int = 5
    checkpoint_every: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.crf_learning_rate < 0:
            raise ValueError(
                f"crf_learning_rate: expected at least 0, got {self.crf_learning_rate}"
            )


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """The unary network of a new model; see `VGG16` and `UnaryNetwork`."""

    width: float = 1.0
    head: str = "7x7"
    batch_norm: bool = False
    dropout: float = 0.5
    input_size: int = 306


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """A whole run: the network it starts from, the CRF's start, and the two stages."""

    name: str
    unary: UnaryStage | None
    joint: JointStage | None
    network: NetworkConfig = field(default_factory=NetworkConfig)
    crf: CRFParameters = field(default_factory=CRFParameters)
    """Where the nine parameters start, unless the run begins from a model that has them."""

    def __post_init__(self) -> None:
        if self.unary is None and self.joint is None:
            raise ValueError("config: expected at least one stage, got none")

    def to_dict(self) -> dict[str, Any]:
        """Nested plain values, for JSON."""
        return asdict(self)


def _fraction(name: str, value: float, *, below: float | None = None) -> None:
    if not 0 <= value <= 1 or value == below:
        raise ValueError(f"{name}: expected a fraction of 1, got {value}")


_GENTLE_CRF = CRFParameters(
    w_spatial=1.0, theta_gamma=1.0, w_bilateral=4.0, theta_alpha=121.0, theta_beta=5.0
)

_COLOURS = Augmentation(crop=161, scale=(0.6, 1.6), brightness=0.3, contrast=0.3, saturation=0.3)

_CONFIGS = {
    # Section 4.1 to the letter; what it leaves open has the dataclasses' defaults.
    "paper": TrainConfig(
        name="paper",
        unary=UnaryStage(),
        joint=JointStage(),
        crf=_GENTLE_CRF,
    ),
    # A thin network from random weights on two CPU cores, in about an hour and a half.
    "compact": TrainConfig(
        name="compact",
        network=NetworkConfig(
            width=0.25, head="smallfov", batch_norm=True, dropout=0.1, input_size=256
        ),
        unary=UnaryStage(
            iterations=10_000,
            batch_size=16,
            copy_size=256,
            augmentation=_COLOURS,
            optimizer="adamw",
            learning_rate=0.0015,
            top_learning_rate=0.0015,
            weight_decay=0.01,
            warmup=150,
            decay=2000,
            average=0.999,
            loss_stride=4,
            precision="bfloat16",
            channels_last=True,
            workers=1,
            validate_every=1000,
        ),
        joint=JointStage(
            iterations=16,
            batch_size=8,
            optimizer="adamw",
            learning_rate=1e-5,
            top_learning_rate=3e-5,
            weight_decay=0.01,
            crf_learning_rate=0.03,
            validate_every=4,
            checkpoint_every=4,
        ),
        crf=_GENTLE_CRF,
    ),
    # A few labelled images, from a trained model, in about half a minute.
    "scribbles": TrainConfig(
        name="scribbles",
        unary=UnaryStage(
            iterations=40,
            batch_size=4,
            copy_size=256,
            augmentation=replace(_COLOURS, scale=(0.75, 1.5)),
            optimizer="adamw",
            learning_rate=3e-4,
            top_learning_rate=3e-3,
            weight_decay=0.01,
            decay=20,
        ),
        joint=JointStage(
            iterations=6,
            batch_size=1,
            optimizer="adamw",
            learning_rate=2e-5,
            top_learning_rate=2e-4,
            weight_decay=0.01,
            crf_learning_rate=0.02,
        ),
        crf=_GENTLE_CRF,
    ),
}


def named_config(name: str) -> TrainConfig:
    """The recipe ``"paper"``, ``"compact"`` or ``"scribbles"``; ValueError for other names."""
    if name not in _CONFIGS:
        raise ValueError(f"config: expected one of {', '.join(_CONFIGS)}, got {name!r}")
    return _CONFIGS[name]
