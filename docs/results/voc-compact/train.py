"""Train voc-compact as it was trained: VOCDEVKIT SOFT_LABELS.npz OUT [first|second|third|joint].

Without the last word all phases run one after the other. Stage 1 ran in three: small crops at a
constant rate, larger ones while the rate falls, and a flatter fall when there was time for more
steps. Each phase continues the run in OUT. `torchrun --nproc-per-node 2` halves the time.
"""

import sys
from dataclasses import replace
from pathlib import Path

from napari_deepcrf.crf import CRFParameters
from napari_deepcrf.data.samples import Sample
from napari_deepcrf.data.soft_labels import SoftLabels
from napari_deepcrf.data.transforms import Augmentation
from napari_deepcrf.data.voc import VOCDataset
from napari_deepcrf.models import DeepCRF
from napari_deepcrf.training import TrainConfig, TrainingRun, named_config
from napari_deepcrf.training.config import JointStage

COMPACT = named_config("compact")
assert COMPACT.unary is not None

SMALL = Augmentation(crop=129, scale=(0.5, 1.3), brightness=0.3, contrast=0.3, saturation=0.3)
LARGE = replace(SMALL, crop=161, scale=(0.6, 1.5))

FIRST = replace(
    COMPACT.unary, iterations=4600, decay=0, distillation=0.5, augmentation=SMALL,
    checkpoint_every=100,
)  # fmt: skip
SECOND = replace(FIRST, iterations=6500, decay=0, augmentation=LARGE)
THIRD = replace(SECOND, iterations=10_000, decay=6000)

JOINT = JointStage(
    iterations=30,
    batch_size=8,
    copy_size=None,
    optimizer="adamw",
    learning_rate=5e-5,
    top_learning_rate=2e-4,
    weight_decay=0.01,
    crf_learning_rate=0.05,
    decay=10,
    validate_every=10,
    checkpoint_every=10,
)

# By training.search on every fourth image of val, behind the network of stage 1.
SEARCHED = CRFParameters(
    w_spatial=1.0, theta_gamma=1.0, w_bilateral=2.0, theta_alpha=121.0, theta_beta=5.0
)


class EveryNth:
    """Every n-th image of val: the half (n = 2) or the quarter (n = 4) that choices may see."""

    def __init__(self, devkit: str, step: int) -> None:
        self._val = VOCDataset(devkit, "val")
        self._step = step
        self.class_names, self.root = self._val.class_names, self._val.root
        self.names = self._val.names[::step]

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Sample:
        return self._val[self._step * index]


def unary(devkit: str, soft: str, out: Path) -> None:
    """Stage 1 on train_aug with the teacher's soft labels, its checkpoint chosen on half of val."""
    train, choice = VOCDataset(devkit, "train_aug"), EveryNth(devkit, 2)
    teacher = SoftLabels.load(soft, train.names)
    for stage in (FIRST, SECOND, THIRD):
        config = TrainConfig(
            name="voc-compact", network=COMPACT.network, unary=stage, joint=None, crf=SEARCHED
        )
        run = TrainingRun(
            config, train, validation=choice, soft=teacher, folder=out, cache=out / "cache"
        )
        for event in run.events():
            print(event)


def joint(devkit: str, out: Path) -> None:
    """Stage 2: on the official labels at original resolution, checkpoint chosen on a quarter."""
    config = TrainConfig(name="voc-compact", unary=None, joint=JOINT)
    run = TrainingRun(
        config,
        VOCDataset(devkit, "train"),
        validation=EveryNth(devkit, 4),
        init=DeepCRF.load(out / "model.safetensors"),
        folder=out / "joint",
    )
    for event in run.events():
        print(event, flush=True)
    run.model.save(out / "voc-compact.safetensors", half=True)


if __name__ == "__main__":
    unary(sys.argv[1], sys.argv[2], Path(sys.argv[3]) / "unary")
    joint(sys.argv[1], Path(sys.argv[3]) / "unary")
