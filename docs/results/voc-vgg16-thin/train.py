"""Train voc-vgg16-thin as it was trained: VOCDEVKIT SOFT_LABELS.npz OUT.

Stage 1 ran in three phases: small crops at a constant rate; larger ones while the rate falls; and
a flatter fall, when there was time for more steps. Each continues the run that lies in OUT.
Under `torchrun --nproc-per-node 2` two processes share every batch, as they did.
"""

import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import torch

from napari_deepcrf.crf import CRFParameters, DenseCRF
from napari_deepcrf.data.samples import EvenSubset, Sample
from napari_deepcrf.data.soft_labels import SoftLabels
from napari_deepcrf.data.transforms import Augmentation
from napari_deepcrf.data.voc import VOCDataset
from napari_deepcrf.models import DeepCRF
from napari_deepcrf.training import TrainConfig, TrainingRun, named_config
from napari_deepcrf.training.config import JointStage
from napari_deepcrf.training.events import CheckpointSaved

COMPACT = named_config("compact")
assert COMPACT.unary is not None

SMALL = Augmentation(crop=129, scale=(0.5, 1.3), brightness=0.3, contrast=0.3, saturation=0.3)
LARGE = replace(SMALL, crop=161, scale=(0.6, 1.5))

FIRST = replace(
    COMPACT.unary,
    iterations=30_000,
    decay=0,
    distillation=0.5,
    augmentation=SMALL,
    checkpoint_every=100,
)
SECOND = replace(FIRST, iterations=9100, decay=4500, augmentation=LARGE)
THIRD = replace(SECOND, iterations=10_000, decay=6000)
PHASES = ((FIRST, 4600), (SECOND, 6500), (THIRD, 9800))
"""Settings, and the step at whose checkpoint the phase ends."""

INPUT_SIZE, SCALES = 320, (0.7, 1.0)
"""Longer side of the network's input, and its multiples whose scores are averaged."""

FINAL_SCALES = (0.5, 0.7, 1.0)
"""For use, after stage 2; both pairs were chosen on the even images of val."""

JOINT = JointStage(
    iterations=24,
    batch_size=8,
    copy_size=None,
    optimizer="adamw",
    learning_rate=1e-5,
    top_learning_rate=3e-5,
    weight_decay=0.01,
    crf_learning_rate=0.03,
    decay=8,
    validate_every=8,
    checkpoint_every=8,
)

# train_aug has val's balance of classes; train alone, with its fewer animals, made things worse.
JOINT_IMAGES = 400

# The teacher's soft labels make for timid scores; mean field wants them sharper.
SHARPER = 2.0

# By training.search on every fourth image of val, behind the network of stage 1.
SEARCHED = CRFParameters(
    w_spatial=1.0, theta_gamma=1.0, w_bilateral=4.0, theta_alpha=121.0, theta_beta=5.0
)


class EveryNth:
    """Every n-th image of val: the half (n = 2) or the quarter (n = 4) that choices may see."""

    def __init__(self, devkit: str, step: int) -> None:
        self._val = VOCDataset(devkit, "val")
        self._step = step
        self.class_names, self.files = self._val.class_names, self._val.files
        self.names = self._val.names[::step]

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Sample:
        return self._val[self._step * index]


def unary(devkit: str, soft: str, out: Path) -> None:
    """Stage 1 on train_aug with the teacher's soft labels, its checkpoint chosen on half of val."""
    train, choice = VOCDataset(devkit, "train_aug"), EveryNth(devkit, 2)
    teacher = SoftLabels.load(soft, train.names)
    for stage, last in PHASES:
        config = TrainConfig(
            name="voc-vgg16-thin", network=COMPACT.network, unary=stage, joint=None, crf=SEARCHED
        )
        run = TrainingRun(
            config, train, validation=choice, soft=teacher, folder=out, cache=out / "cache"
        )
        with closing(run.events()) as events:
            for event in events:
                print(event, flush=True)
                if isinstance(event, CheckpointSaved) and event.step == last < stage.iterations:
                    break


def joint(devkit: str, out: Path) -> None:
    """Stage 2: on images at the size they have, checkpoint chosen on a quarter of val."""
    config = TrainConfig(name="voc-vgg16-thin", unary=None, joint=JOINT)
    start = DeepCRF.load(out / "model.safetensors")
    start.network.input_size, start.network.scales = INPUT_SIZE, SCALES
    start.crf = DenseCRF(SEARCHED)
    with torch.no_grad():
        for parameter in start.network.backbone.top_parameters():
            parameter.mul_(SHARPER)
    run = TrainingRun(
        config,
        EvenSubset(VOCDataset(devkit, "train_aug"), JOINT_IMAGES),
        validation=EveryNth(devkit, 4),
        init=start,
        folder=out / "joint",
    )
    for event in run.events():
        print(event, flush=True)
    run.model.network.scales = FINAL_SCALES
    run.model.save(out / "voc-vgg16-thin.safetensors", half=True)


if __name__ == "__main__":
    unary(sys.argv[1], sys.argv[2], Path(sys.argv[3]) / "unary")
    joint(sys.argv[1], Path(sys.argv[3]) / "unary")
