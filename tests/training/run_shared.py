"""A few steps of stage 1, alone or as one of several processes under torchrun: DATA."""

import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist

from napari_deepcrf.data.copies import ReducedCopies
from napari_deepcrf.data.transforms import Augmentation
from napari_deepcrf.data.voc import VOCDataset
from napari_deepcrf.models.unary import UnaryNetwork
from napari_deepcrf.models.vgg16 import VGG16
from napari_deepcrf.training.config import UnaryStage
from napari_deepcrf.training.distributed import join_group, rank
from napari_deepcrf.training.events import StepDone
from napari_deepcrf.training.unary_stage import UnaryTrainer


def losses(data: Path) -> list[float]:
    """Of five steps with batches of four; no batch norm or dropout, which see shares."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = UnaryNetwork(VGG16(21, width=0.06, head="smallfov", dropout=0.0), input_size=48)
    stage = UnaryStage(iterations=5, batch_size=4, augmentation=Augmentation(crop=41))
    trainer = UnaryTrainer(network, ReducedCopies(VOCDataset(data, "train"), 48), stage)
    return [event.loss for event in trainer.events() if isinstance(event, StepDone)]


if __name__ == "__main__":
    join_group()
    values = losses(Path(sys.argv[1]))
    if rank() == 0:
        print(json.dumps(values))
    if dist.is_initialized():
        dist.destroy_process_group()
