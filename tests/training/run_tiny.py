"""A tiny two-stage run, also as a process of its own for tests that kill it: DATA OUT."""

import sys
from dataclasses import replace
from pathlib import Path

import torch

from napari_deepcrf.data.transforms import Augmentation
from napari_deepcrf.data.voc import VOCDataset
from napari_deepcrf.training import TrainingRun, named_config
from napari_deepcrf.training.config import NetworkConfig


def train_tiny(data: Path, out: Path) -> None:
    """Six steps of stage 1 and five of stage 2, on one thread."""
    torch.set_num_threads(1)
    recipe = named_config("compact")
    small = {"batch_size": 2, "copy_size": 48, "validate_every": 4, "checkpoint_every": 2}
    crop = Augmentation(crop=41)
    config = replace(
        recipe,
        network=NetworkConfig(
            width=0.06, head="smallfov", batch_norm=True, dropout=0.1, input_size=48
        ),
        unary=replace(recipe.unary, **small, iterations=6, augmentation=crop, workers=0),
        joint=replace(recipe.joint, **small, iterations=5),
    )
    train, val = VOCDataset(data, "train"), VOCDataset(data, "val")
    for _ in TrainingRun(config, train, validation=val, folder=out).events():
        pass


if __name__ == "__main__":
    train_tiny(Path(sys.argv[1]), Path(sys.argv[2]))
