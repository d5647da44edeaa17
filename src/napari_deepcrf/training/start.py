"""The model that a run begins with: new, given, or given with another top layer."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

from napari_deepcrf.crf import DenseCRF
from napari_deepcrf.models.deepcrf import DeepCRF
from napari_deepcrf.models.fine_head import FineUnaryNetwork
from napari_deepcrf.models.unary import UnaryNetwork
from napari_deepcrf.models.vgg16 import VGG16
from napari_deepcrf.training.config import NetworkConfig, TrainConfig


def start_model(
    config: TrainConfig, class_names: tuple[str, ...], init: DeepCRF | str | Path | None
) -> DeepCRF:
    """The model a run begins with, see `TrainingRun`.

    Raises
    ------
    ValueError
        If the recipe is on patches, and a fine top layer, which sees images as a whole, would
        learn new classes from scribbles (see `TrainConfig.scribbles`).
    FileNotFoundError
        If ``init`` is no model's name and no file.
    """
    model = _start(config, class_names, init)
    if config.patch_size is not None and isinstance(model.network, FineUnaryNetwork):
        raise ValueError(
            "patch_size: expected none, as scribbles of new classes are trained on whole images at "
            f"their own scale, got {config.patch_size}"
        )
    return model


def _start(
    config: TrainConfig, class_names: tuple[str, ...], init: DeepCRF | str | Path | None
) -> DeepCRF:
    if init is None or init == "imagenet":
        new = _new_backbone(config.network, len(class_names))
        if init == "imagenet":
            from napari_deepcrf.models.imagenet import load_imagenet

            load_imagenet(new)
        kind = UnaryNetwork if config.scribbles is None else FineUnaryNetwork
        network = kind(new, input_size=config.network.input_size)
        return DeepCRF(network, DenseCRF(config.crf), class_names)
    given = given_model(init)
    old = given.network.backbone
    backbone = old.with_changes(num_classes=len(class_names))
    backbone.features.load_state_dict(old.features.state_dict())
    same_classes = given.class_names == class_names
    if config.scribbles is not None and not (same_classes and type(given.network) is UnaryNetwork):
        # New classes, or those that scribbles taught before. What the top layer of a plain model
        # knows of its own classes is kept instead: not every one of them has a stroke.
        fine = FineUnaryNetwork(backbone, input_size=given.network.input_size)
        return DeepCRF(fine, DenseCRF(config.crf), class_names)
    if same_classes:
        backbone.score.load_state_dict(old.score.state_dict())
    if config.patch_size is None:
        network = UnaryNetwork(
            backbone, input_size=given.network.input_size, scales=given.network.scales
        )
    else:
        network = UnaryNetwork(backbone, input_size=None)
    crf = deepcopy(given.crf) if same_classes else DenseCRF(config.crf)
    return DeepCRF(network, crf, class_names)


def given_model(init: DeepCRF | str | Path) -> DeepCRF:
    """A model as it is, or the one of a name or path."""
    return init if isinstance(init, DeepCRF) else DeepCRF.load(init)


def _new_backbone(config: NetworkConfig, num_classes: int) -> VGG16:
    return VGG16(
        num_classes,
        width=config.width,
        head=config.head,
        batch_norm=config.batch_norm,
        dropout=config.dropout,
    )
