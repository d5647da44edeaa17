"""The training use case: data checked first, then a run that can be stopped, kept or undone."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from napari_deepcrf.interrupt import raise_if_interrupted
from napari_deepcrf.session.events import Event, Progress
from napari_deepcrf.session.interruptible_network import interruptible_network

if TYPE_CHECKING:
    from napari_deepcrf.data.samples import Sample, SegmentationDataset
    from napari_deepcrf.models import DeepCRF
    from napari_deepcrf.session.images import ImageSource
    from napari_deepcrf.training.config import TrainConfig
    from napari_deepcrf.training.preview import PreviewImage

Array = npt.NDArray[Any]

PREVIEW_EVERY_S = 3.0
VALIDATIONS_PER_STAGE = 8
FEW = 20
"""So many validation images are measured often; more, as the recipe says."""
ENOUGH_TO_HOLD_OUT = 5
"""A folder of at least so many pairs is validated on every fifth, which is then not trained on."""


@dataclass(frozen=True, eq=False)
class LabelledImage:
    """An image and its annotation (H, W): 0 unlabelled, class + 1."""

    image: ImageSource
    annotation: Array


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainingPlan:
    """What to train on, from what, and how; all captured before the job starts."""

    read_pairs: Callable[[], Sequence[LabelledImage]] | None = None
    """Annotated images; or else …"""
    folder: Path | None = None
    """… a VOC devkit, or a folder with ``images`` and ``labels``."""
    class_names: tuple[str, ...] = ()
    """Classes of the pairs; a folder has its own."""
    init: DeepCRF | None = None
    """Model to start from; it is copied, never changed."""
    config: str = "scribbles"
    """Name of the recipe."""
    preview: ImageSource | None = None
    """Image to segment every few seconds."""
    device: str = "auto"
    """Where to train."""


@dataclass(frozen=True, eq=False)
class TrainingDone:
    """A whole, usable model; the session's own is still the old one."""

    model: DeepCRF
    stopped: bool


def train(plan: TrainingPlan, stop: threading.Event) -> Iterator[Event]:
    """Yield progress, the trainer's events, `Preview` among them, and at last `TrainingDone`.

    ``stop``, once set, ends it after the present step with the best state so far.
    Closing the generator cancels: nothing was changed but the copy being trained. Raises the
    trainer's `DatasetError`, which lists all that is wrong with the data, before any step.
    """
    yield Progress("Reading the training data")
    from napari_deepcrf.device import resolve_device
    from napari_deepcrf.session.warm_up import CHANNELS, compile_missing
    from napari_deepcrf.training.config import named_config
    from napari_deepcrf.training.events import Finished, StageStarted
    from napari_deepcrf.training.run import TrainingRun

    training, validation, measured_on = _datasets(plan)
    device = resolve_device(plan.device).type
    yield from compile_missing(len(training.class_names), CHANNELS, device)
    config = named_config(plan.config)
    if validation is not None and len(validation) <= FEW:
        config = _validate_often(config)
    images = f"{len(training)} image" + ("s" if len(training) != 1 else "")
    yield Progress(f"Training on {images}; the IoU is {measured_on}")
    run = TrainingRun(
        config,
        training,
        validation=validation,
        init=plan.init,
        device=plan.device,
        preview=_preview_image(plan),
    )
    stopped = False
    with closing(run.events()) as events, ExitStack() as hooks:
        for event in events:
            # between two stages a network may be rebuilt from this one, hooks and all
            if isinstance(event, StageStarted):
                hooks.enter_context(interruptible_network(run.model))
            elif isinstance(event, Finished):
                hooks.close()
            yield event
            if stop.is_set():
                stopped = True
                break
    yield TrainingDone(run.model.eval(), stopped)


def _preview_image(plan: TrainingPlan) -> PreviewImage | None:
    from napari_deepcrf.training.preview import PreviewImage

    if plan.preview is None:
        return None
    return PreviewImage(image=plan.preview.read(), key=plan.preview.key, every_s=PREVIEW_EVERY_S)


class Subset:
    """Some samples of a dataset, read one by one: between two of them the job can be stopped."""

    def __init__(self, dataset: SegmentationDataset, indices: Sequence[int]) -> None:
        self.class_names = dataset.class_names
        self._dataset, self._indices = dataset, indices

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> Sample:
        raise_if_interrupted()
        return self._dataset[self._indices[index]]


def _datasets(
    plan: TrainingPlan,
) -> tuple[SegmentationDataset, SegmentationDataset | None, str]:
    """Training data, validation data, and in words what the IoU is measured on."""
    if plan.folder is None:
        pairs = () if plan.read_pairs is None else plan.read_pairs()
        if not pairs:
            raise ValueError("annotations: expected a painted image, got none")
        from napari_deepcrf.data.arrays import ArrayDataset

        own = ArrayDataset(
            [(pair.image.read(), pair.annotation) for pair in pairs],
            plan.class_names,
            names=[pair.image.name for pair in pairs],
            known=plan.class_names,  # unlike in a file set, a class may be annotated nowhere
        )
        return own, own, "that of the painted pixels"
    if (plan.folder / "images").is_dir():
        from napari_deepcrf.data.folder import TRAIN, VALIDATION, FolderDataset

        if not (plan.folder / f"{VALIDATION}.txt").is_file():
            return _split(FolderDataset(plan.folder))
        listed, kept = (FolderDataset(plan.folder, split) for split in (TRAIN, VALIDATION))
        return _whole(listed), _whole(kept), f"that of the images in {VALIDATION}.txt"
    from napari_deepcrf.data.voc import VOCDataset

    train, val = (VOCDataset(plan.folder, split) for split in ("train", "val"))
    return _whole(train), _whole(val), "that of VOC's val images"


def _whole(dataset: SegmentationDataset) -> Subset:
    return Subset(dataset, range(len(dataset)))


def _split(pairs: SegmentationDataset) -> tuple[SegmentationDataset, SegmentationDataset, str]:
    """Hold every fifth pair out; of few ones, measure on those trained on and say so."""
    numbers = range(len(pairs))
    if len(pairs) < ENOUGH_TO_HOLD_OUT:
        return Subset(pairs, numbers), Subset(pairs, numbers), "that of the training images"
    held_out = numbers[ENOUGH_TO_HOLD_OUT - 1 :: ENOUGH_TO_HOLD_OUT]
    rest = [n for n in numbers if n not in held_out]
    return Subset(pairs, rest), Subset(pairs, held_out), f"that of {len(held_out)} held out"


def _validate_often(config: TrainConfig) -> TrainConfig:
    """Few images are quickly measured: some points on the curve and a best state to go back to."""

    def often(stage: Any) -> Any:
        return stage and replace(
            stage, validate_every=max(1, stage.iterations // VALIDATIONS_PER_STAGE)
        )

    return replace(config, unary=often(config.unary), joint=often(config.joint))
