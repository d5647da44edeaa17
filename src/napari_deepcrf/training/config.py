"""What a training run may vary: frozen, keyword-only dataclasses, and the named recipes."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, get_args

from napari_deepcrf.crf import CRFParameters
from napari_deepcrf.data.images import MIN_SIDE
from napari_deepcrf.data.transforms import Augmentation
from napari_deepcrf.training.scribble_config import ScribbleConfig

Precision = Literal["auto", "float32", "bfloat16", "float16"]
Optimizer = Literal["sgd", "adamw"]


@dataclass(frozen=True, kw_only=True)
class StageConfig:
    """What both stages have in common."""

    iterations: int
    """Updates of the weights."""
    batch_size: int
    """Crops or images to an update, over all processes."""
    copy_size: int | None = None
    """Longer side of the images in pixels; ``None``: original resolution."""
    optimizer: Optimizer = "sgd"
    """Of the network. The CRF's parameters have Adam's, see `JointStage.crf_learning_rate`."""
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
    precision: Precision = "auto"
    """What the network computes in; the CRF and the losses are always float32. ``"auto"``: half
    precision on CUDA GPUs (bfloat16 where they have it), float32 elsewhere."""
    workers: int | None = None
    """Processes that prepare batches; 0 prepares them between the steps. ``None``: up to 4 where
    a GPU would wait for them, else 0."""
    clip_norm: float | None = 10.0
    """Largest norm of the gradient; a longer one is shortened to it. ``None``: as it is."""
    validate_every: int = 500
    """Updates between two validations."""
    checkpoint_every: int = 500
    """Updates between two states that a run can go on from."""

    def __post_init__(self) -> None:
        for name in (
            "iterations",
            "batch_size",
            "learning_rate",
            "top_learning_rate",
            "validate_every",
            "checkpoint_every",
        ):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}: expected a positive number, got {getattr(self, name)}")
        if self.clip_norm is not None and not self.clip_norm > 0:
            raise ValueError(f"clip_norm: expected a positive number, got {self.clip_norm}")
        for name in ("momentum", "weight_decay", "warmup", "decay", "workers"):
            if (getattr(self, name) or 0) < 0:
                raise ValueError(f"{name}: expected at least 0, got {getattr(self, name)}")
        if not 0 <= self.average < 1:
            raise ValueError(f"average: expected 0 ≤ value < 1, got {self.average}")
        for name, known in (("optimizer", Optimizer), ("precision", Precision)):
            if getattr(self, name) not in get_args(known):
                raise ValueError(
                    f"{name}: expected one of {', '.join(get_args(known))}, "
                    f"got {getattr(self, name)!r}"
                )

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
    """Longer side in pixels of the images that crops come from; ``None``: original resolution."""
    augmentation: Augmentation = field(default_factory=Augmentation)
    loss_stride: int = 1
    """The loss looks at every n-th pixel in both directions."""
    distillation: float = 0.0
    """Share of the teacher's term in the loss, for runs with soft labels."""
    channels_last: bool = False
    """Whether weights and crops lie channels last in memory, which is faster on some processors."""
    micro_batch: int | None = None
    """Most crops in memory at once: a batch's gradient is added up over parts of this size.
    ``None``: the whole batch at once. Stage 2 always adds up over single images."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("loss_stride", "micro_batch"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}: expected at least 1, got {value}")
        if not 0 <= self.distillation <= 1:
            raise ValueError(f"distillation: expected 0 ≤ value ≤ 1, got {self.distillation}")


@dataclass(frozen=True, kw_only=True)
class JointStage(StageConfig):
    """Stage 2: network and CRF together, on whole images (figure 3, section 4.1).

    By default at the original resolution, which the CRF's widths, in pixels, belong to.
    """

    iterations: int = 20
    batch_size: int = 20
    crf_learning_rate: float = 0.01
    """Rate of the logarithms of the CRF's weights and widths, always by Adam: the paper gives
    none, and Adam's step is a relative change of about this size whatever the loss's scale."""
    flip: bool = True
    """Whether half of the images are mirrored."""
    measured_train: int = 0
    """How many training images are measured with each validation, for the second curve of
    figure 4 (b)."""
    validate_every: int = 5
    checkpoint_every: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.crf_learning_rate < 0:
            raise ValueError(
                f"crf_learning_rate: expected at least 0, got {self.crf_learning_rate}"
            )
        if self.measured_train < 0:
            raise ValueError(f"measured_train: expected at least 0, got {self.measured_train}")


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """The unary network of a new model; see `VGG16` and `UnaryNetwork`."""

    width: float = 1.0
    head: str = "7x7"
    batch_norm: bool = False
    dropout: float = 0.5
    input_size: int | None = 306


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """A whole run: the network it starts from, the CRF's start, and the two stages."""

    name: str
    unary: UnaryStage | None
    joint: JointStage | None
    network: NetworkConfig = field(default_factory=NetworkConfig)
    crf: CRFParameters = field(default_factory=CRFParameters)
    """Where the nine parameters start, unless the run begins from a model that has them."""
    scribbles: ScribbleConfig | None = None
    """How new classes are learnt from few labelled pixels, in place of both stages: by a finer top
    layer on fixed hidden ones. ``None``: as other classes are."""
    patch_size: int | None = None
    """Side in pixels of the patches, at the images' native scale, that stage 2, validation and
    report see; ``None``: whole images, as in the paper. See `on_patches`."""
    reported: int = 200
    """Most images, evenly spread over each dataset, in the report's tables and galleries."""

    def __post_init__(self) -> None:
        if self.unary is None and self.joint is None:
            raise ValueError("config: expected at least one stage, got none")
        if self.reported < 1:
            raise ValueError(f"reported: expected at least 1, got {self.reported}")
        sizes = {stage.copy_size for stage in (self.unary, self.joint) if stage is not None}
        if self.patch_size is not None and {self.network.input_size, *sizes} != {None}:
            raise ValueError(
                "patch_size: expected stages and network at native scale, as on_patches makes them"
            )

    def on_patches(self, size: int = 306) -> TrainConfig:
        """The same recipe on patches at native scale, for images much larger than 306 pixels.

        Stage 1 crops ``size`` pixels from the images as they are; stage 2, validation and report
        see patches of at most that side which cover each image. The network that comes of it
        never reduces an image. Raises ValueError for a size below 8.
        """
        if size < MIN_SIDE:
            raise ValueError(f"size: expected at least {MIN_SIDE} pixels, got {size}")
        unary, joint = self.unary, self.joint
        if unary is not None:
            crops = replace(unary.augmentation, crop=size)
            unary = replace(unary, copy_size=None, augmentation=crops)
        if joint is not None:
            joint = replace(joint, copy_size=None)
        network = replace(self.network, input_size=None)
        return replace(self, network=network, unary=unary, joint=joint, patch_size=size)

    def to_dict(self) -> dict[str, Any]:
        """Nested plain values, for JSON."""
        return asdict(self)


_GENTLE_CRF = CRFParameters(
    w_spatial=1.0, theta_gamma=1.0, w_bilateral=4.0, theta_alpha=121.0, theta_beta=5.0
)

_COLOURS = Augmentation(crop=161, scale=(0.6, 1.6), brightness=0.3, contrast=0.3, saturation=0.3)

_CONFIGS = {
    # Section 4.1 to the letter; what it leaves open has the dataclasses' defaults.
    "paper": TrainConfig(
        name="paper",
        unary=UnaryStage(clip_norm=None),
        joint=JointStage(clip_norm=None, measured_train=100),
        crf=_GENTLE_CRF,
        reported=1449,
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
            measured_train=40,
            validate_every=4,
            checkpoint_every=4,
        ),
        crf=_GENTLE_CRF,
    ),
    # A few labelled images, from a trained model, in about half a minute.
    "scribbles": TrainConfig(
        name="scribbles",
        scribbles=ScribbleConfig(),
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
            workers=0,
        ),
        joint=JointStage(
            iterations=6,
            batch_size=1,
            optimizer="adamw",
            learning_rate=2e-5,
            top_learning_rate=2e-4,
            weight_decay=0.01,
            crf_learning_rate=0.02,
            workers=0,
        ),
        crf=_GENTLE_CRF,
    ),
}


def named_config(name: str) -> TrainConfig:
    """The recipe ``"paper"``, ``"compact"`` or ``"scribbles"``; ValueError for other names."""
    if name not in _CONFIGS:
        raise ValueError(f"config: expected one of {', '.join(_CONFIGS)}, got {name!r}")
    return _CONFIGS[name]
