"""A few steps of both stages, alone or as one of several processes under torchrun: DATA."""

import json
import sys
import weakref
from pathlib import Path

import torch

from napari_deepcrf.crf import CRFParameters, DenseCRF
from napari_deepcrf.data.copies import ReducedCopies
from napari_deepcrf.data.transforms import Augmentation
from napari_deepcrf.data.voc import VOC_CLASSES, VOCDataset
from napari_deepcrf.models import DeepCRF
from napari_deepcrf.models.unary import UnaryNetwork
from napari_deepcrf.models.vgg16 import VGG16
from napari_deepcrf.training.config import JointStage, UnaryStage
from napari_deepcrf.training.distributed import join_group, leave_group, rank
from napari_deepcrf.training.events import StepDone, Validated
from napari_deepcrf.training.joint_stage import JointTrainer
from napari_deepcrf.training.unary_stage import UnaryTrainer


def figures(data: Path) -> tuple[list[float], list[list[str]]]:
    """Losses and validation IoU of both stages, and the images of every step.

    No batch norm or dropout, which see shares.
    """
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = UnaryNetwork(VGG16(21, width=0.06, head="smallfov", dropout=0.0), input_size=48)
    weak = CRFParameters(w_spatial=0.5, theta_gamma=2, w_bilateral=1, theta_alpha=10)
    model = DeepCRF(network, DenseCRF(weak), VOC_CLASSES)
    train, validation = (ReducedCopies(VOCDataset(data, split), 48) for split in ("train", "val"))
    often = {"batch_size": 4, "validate_every": 3, "learning_rate": 0.01}
    unary = UnaryStage(iterations=4, augmentation=Augmentation(crop=41), micro_batch=1, **often)
    joint = JointStage(iterations=3, measured_train=3, **often)
    events = [
        *UnaryTrainer(model, train, unary, validation=validation).events(),
        *JointTrainer(model, train, joint, validation=validation).events(),
    ]
    steps = [event for event in events if isinstance(event, StepDone)]
    validated = [event for event in events if isinstance(event, Validated)]
    found = [step.loss for step in steps]
    found += [event.mean_iou for event in validated]
    found += [event.train_mean_iou or 0.0 for event in validated]
    return found, [list(step.names) for step in steps]


if __name__ == "__main__":
    join_group(torch.device("cpu"))
    group = weakref.ref(torch.distributed.group.WORLD)
    values = figures(Path(sys.argv[1]))
    if rank() == 0:
        print(json.dumps(values))
    leave_group()
    assert group() is None, "the group outlives its end, and so do its threads"
