"""A whole run: the two stages one after the other, from any start, as one stream of events."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import torch

from napari_deepcrf.data.arrays import ArrayDataset
from napari_deepcrf.data.samples import SegmentationDataset
from napari_deepcrf.data.soft_labels import SoftLabels
from napari_deepcrf.models.backbone import fold_batch_norm
from napari_deepcrf.models.deepcrf import DeepCRF
from napari_deepcrf.models.fine_head import FineUnaryNetwork
from napari_deepcrf.training.config import StageConfig, TrainConfig, named_config
from napari_deepcrf.training.distributed import join_group, own_device, rank, world_size
from napari_deepcrf.training.events import Event, Preview, ReportWritten, StageEvent
from napari_deepcrf.training.joint_stage import JointTrainer
from napari_deepcrf.training.loop import StageTrainer, state_path
from napari_deepcrf.training.preview import PreviewImage, with_previews
from napari_deepcrf.training.records import RunRecord
from napari_deepcrf.training.report import write_report
from napari_deepcrf.training.run_data import RunData
from napari_deepcrf.training.scribble_stages import ScribbleTrainer
from napari_deepcrf.training.start import given_model, start_model
from napari_deepcrf.training.unary_stage import UnaryTrainer

PREVIEW_EVERY_S = 10.0
"""Least time between the previews of `fit`; one costs as much as segmenting the image."""


class TrainingRun:
    """Stage 1, then stage 2, as the configuration has them.

    Under ``torchrun`` the processes share every batch, and the first one writes.

    Parameters
    ----------
    config
        A recipe, by itself or by name.
    train, validation
        Datasets; without validation samples the latest weights count as the best.
    init
        A `DeepCRF`, the name or path of one, ``"imagenet"`` for torchvision's VGG16, or ``None``
        for random weights. A model of other classes keeps all but its top layer.
    soft
        A teacher's soft labels of ``train``, for recipes that distil.
    folder
        Where checkpoints go, and ``model.safetensors`` at the end; the run continues from what
        lies there. ``None`` keeps nothing.
    cache
        A folder for the decoded copies of a dataset of files.
    seed
        Of the weights, the order of the samples, the crops and the dropout.
    device
        Where to train; what `resolve_device` takes. Under ``torchrun``, ``"auto"`` is the
        process's own GPU.
    preview
        An image of which `Preview` events show the labels while the run goes on.

    Raises
    ------
    DatasetError
        A ValueError that lists everything wrong with the datasets, before any training.
    ValueError
        If the recipe is on patches, and scribbles teach new classes, which takes whole images; or
        for a device that is not there.
    FileNotFoundError
        If ``init`` is no model's name and no file.
    """

    def __init__(
        self,
        config: TrainConfig | str,
        train: SegmentationDataset,
        *,
        validation: SegmentationDataset | None = None,
        init: DeepCRF | str | Path | None = None,
        soft: SoftLabels | None = None,
        folder: Path | None = None,
        cache: Path | None = None,
        seed: int = 0,
        device: str = "auto",
        preview: PreviewImage | None = None,
    ) -> None:
        place = own_device(device)
        self.config = named_config(config) if isinstance(config, str) else config
        join_group(place)
        self.folder, self.soft, self.seed, self.preview = folder, soft, seed, preview
        self._data = RunData(self.config, train, validation, cache)
        self._scribbled = train
        self._start = {
            "init": init.name if isinstance(init, DeepCRF) else init and str(init),
            "class_names": list(train.class_names),
            "train_samples": len(train),
            "validation_samples": 0 if validation is None else len(validation),
            "device": str(place),
            "processes": world_size(),
            "seed": seed,
        }
        self._worth_keeping = True
        torch.manual_seed(seed)
        self.model = start_model(self.config, tuple(train.class_names), init).to(place)

    def events(self) -> Generator[Event]:
        """Train; when the generator ends or is closed, `model` is the best so far.

        With a folder, ``model.safetensors`` is written whichever way it ends, and every event is
        recorded; a run that ends by itself also leaves its report there (see `write_report`). An
        earlier run's model stays until this one is where that one was; where scribbles start
        afresh, until their stage 1 is over.
        """
        record, stage = None, None
        if self.folder is not None and rank() == 0:
            record = RunRecord(self.folder, {**self.config.to_dict(), **self._start})
        try:
            with closing(self._watched()) as events:
                for event in events:
                    stage = event.stage
                    if record is not None:
                        record.add(event)
                    yield event
        finally:
            if record is not None and stage is not None:
                path = record.path.with_name("model.safetensors")
                caught_up = stage == "joint" or not self._has_joint_state()
                if (caught_up and self._worth_keeping) or not path.exists():
                    self.model.eval().save(path)
        if record is not None:
            for path in write_report(record.path.parent, self.model, self._data.reported()):
                yield ReportWritten(path)

    def _has_joint_state(self) -> bool:
        """Whether the folder's run has been in stage 2, which this one goes through as well."""
        if self.folder is None or self.config.joint is None:
            return False
        return state_path(self.folder, "joint").is_file()

    def _watched(self) -> Generator[StageEvent | Preview]:
        stages = self._stages()
        if self.preview is None or rank() > 0:
            return stages
        return with_previews(stages, self.model, self.preview)

    def _stages(self) -> Generator[StageEvent]:
        if isinstance(self.model.network, FineUnaryNetwork):
            yield from self._scribbles()
            return
        unary, joint = self.config.unary, self.config.joint
        if unary is not None:
            yield from self._train(UnaryTrainer, unary, soft=self.soft)
        if joint is not None:
            yield from self._train(JointTrainer, joint)

    def _train(
        self, kind: Callable[..., StageTrainer[Any]], stage: StageConfig, **options: Any
    ) -> Iterator[StageEvent]:
        """One stage, after which the model has its best weights, and no batch norm any more."""
        trainer = kind(
            self.model,
            self._data.train(stage),
            stage,
            validation=self._data.validation(stage),
            folder=self.folder,
            seed=self.seed,
            **options,
        )
        try:
            yield from trainer.events()
        finally:
            trainer.restore_best()
            if self.model.network.backbone.batch_norm:
                self.model.network.backbone = fold_batch_norm(self.model.network.backbone)
            self.model.eval()

    def _scribbles(self) -> Iterator[StageEvent]:
        """Both stages, at the images' own size, the fine top layer's way."""
        config, joint = self.config.scribbles, self.config.joint
        assert config is not None  # start_model sees to it
        trainer = ScribbleTrainer(
            self.model,
            self._scribbled,
            config,
            validation=None if joint is None else self._data.validation(joint),
            folder=self.folder,
            seed=self.seed,
        )
        self._worth_keeping = False
        try:
            yield from trainer.events()
        finally:
            trainer.restore_best()
            self._worth_keeping = trainer.stages_done > 0


def fit(
    pairs: Iterable[tuple[Any, Any]],
    *,
    init: DeepCRF | str | Path | None = "voc-compact",
    config: TrainConfig | str = "scribbles",
    on_event: Callable[[Event], object] | None = None,
    class_names: Sequence[str] | None = None,
    folder: Path | str | None = None,
    seed: int = 0,
    device: str = "auto",
) -> DeepCRF:
    """Train a model on images and annotations in memory, network and CRF together.

    Parameters
    ----------
    pairs
        Images, as `as_rgb` takes them, with (H, W) integer annotations: 0 unlabelled, which
        leaves the loss, and class + 1. A stack (Z, H, W[, C]) has annotations (Z, H, W).
    init, config, folder, seed, device
        See `TrainingRun`.
    on_event
        Called with every event, `Preview` of the first image among them; an exception that it
        raises stops the training and reaches the caller.
    class_names
        One name per class; by default "class 1" … up to the largest annotation, which takes
        numbers without gaps. With ``init``'s own names its top layer and CRF are kept too, and not
        every class needs an annotation.

    Returns
    -------
    The trained model, in evaluation mode.

    Raises
    ------
    DatasetError
        A ValueError that lists everything wrong with the pairs, before any training.
    """
    start = init if init is None or init == "imagenet" else given_model(init)
    known = start.class_names if isinstance(start, DeepCRF) else ()
    dataset = ArrayDataset(pairs, class_names, known=known)
    first = dataset[0]
    run = TrainingRun(
        config,
        dataset,
        init=start,
        folder=None if folder is None else Path(folder),
        seed=seed,
        device=device,
        preview=None
        if on_event is None
        else PreviewImage(image=first.image, key=first.name, every_s=PREVIEW_EVERY_S),
    )
    for event in run.events():
        if on_event is not None:
            on_event(event)
    return run.model
