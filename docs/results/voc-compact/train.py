"""Train voc-compact, one stage at a time; each continues a run that lies in OUT.

    torchrun --nproc-per-node 2 train.py unary VOCDEVKIT OUT SEED SOFT_LABELS.npz START.safetensors
    python train.py joint VOCDEVKIT OUT SEED

Stage 1 trains the network alone at output stride 16, two processes sharing every batch. Stage 2
trains network and CRF together at 8, as they are used, from parameters searched behind stage 1.
"""

import sys
from contextlib import closing
from pathlib import Path

import torch

from napari_deepcrf.crf import CRFParameters, DenseCRF
from napari_deepcrf.data.samples import EvenSubset, Sample
from napari_deepcrf.data.soft_labels import SoftLabels
from napari_deepcrf.data.transforms import Augmentation
from napari_deepcrf.data.voc import VOCDataset
from napari_deepcrf.models import DeepCRF, UnaryNetwork
from napari_deepcrf.training import TrainConfig, TrainingRun
from napari_deepcrf.training.config import JointStage, UnaryStage
from napari_deepcrf.training.search import search_crf

SEVEN = ("background", "cat", "cow", "dog", "horse", "sheep", "person")
"""The classes that the training images show often enough."""

UNARY = UnaryStage(
    iterations=1600,
    batch_size=16,
    copy_size=320,
    augmentation=Augmentation(
        crop=225, scale=(0.5, 1.5), brightness=0.3, contrast=0.3, saturation=0.3
    ),
    optimizer="adamw",
    learning_rate=4e-4,
    top_learning_rate=2e-3,
    weight_decay=0.02,
    warmup=100,
    decay=800,
    average=0.998,
    loss_stride=4,
    distillation=0.5,
    precision="bfloat16",
    channels_last=True,
    workers=1,
    validate_every=800,
    checkpoint_every=200,
)

# The stem and the first three blocks: what ImageNet taught of edges and textures stays.
FROZEN_LAYERS = 4

JOINT = JointStage(
    iterations=24,
    batch_size=8,
    optimizer="adamw",
    learning_rate=1e-5,
    top_learning_rate=3e-5,
    weight_decay=0.01,
    crf_learning_rate=0.03,
    decay=8,
    validate_every=8,
    checkpoint_every=8,
)

# train_aug has val's balance of classes; train alone has fewer animals.
JOINT_IMAGES = 400

INPUT_SIZE, SCALES = 320, (1.0,)
"""Longer side of the network's input in stage 2 and in use, and its multiples."""

GUESS = CRFParameters(
    w_spatial=2.0, theta_gamma=2.0, w_bilateral=4.0, theta_alpha=60.0, theta_beta=6.0
)
"""Where the search for the CRF's parameters begins."""


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


def unary(devkit: str, soft: str, start: str, out: Path, seed: int) -> None:
    """Stage 1 on train_aug with the teacher's soft labels, its checkpoint chosen on half of val."""
    train = VOCDataset(devkit, "train_aug")
    model = DeepCRF.load(start)
    torch.manual_seed(seed)
    for name, layer in model.network.backbone.features.named_children():
        if name.startswith("fc"):
            layer.conv.reset_parameters()
    model.network.backbone.score.reset_parameters()
    run = TrainingRun(
        TrainConfig(name="voc-compact", unary=UNARY, joint=None),
        train,
        validation=EveryNth(devkit, 2),
        init=model,
        soft=SoftLabels.load(soft, train.names),
        folder=out,
        cache=out / "cache",
        seed=seed,
    )
    run.model.network.backbone.freeze(FROZEN_LAYERS)
    with closing(run.events()) as events:
        for event in events:
            print(event, flush=True)


def piecewise(devkit: str, stage1: Path, out: Path) -> None:
    """Stage 1's network at output stride 8 with a CRF searched on a quarter of val behind it."""
    trained = DeepCRF.load(stage1)
    backbone = trained.network.backbone.with_changes(output_stride=8)
    backbone.load_state_dict(trained.network.backbone.state_dict())
    network = UnaryNetwork(backbone, input_size=INPUT_SIZE, scales=SCALES)
    model = DeepCRF(network, DenseCRF(GUESS), trained.class_names).eval()
    found = search_crf(
        model, EveryNth(devkit, 4), GUESS, random=12, passes=1, classes=SEVEN, on_trial=print
    )
    model.crf = DenseCRF(found.best.parameters)
    model.save(out)


def joint(devkit: str, start: Path, out: Path, seed: int) -> None:
    """Stage 2 from the searched CRF: images at the size they have, chosen on a quarter of val."""
    run = TrainingRun(
        TrainConfig(name="voc-compact", unary=None, joint=JOINT),
        EvenSubset(VOCDataset(devkit, "train_aug"), JOINT_IMAGES),
        validation=EveryNth(devkit, 4),
        init=DeepCRF.load(start),
        folder=out,
        seed=seed,
    )
    for event in run.events():
        print(event, flush=True)
    run.model.save(out / "voc-compact.safetensors", half=True)


def main(stage: str, devkit: str, folder: str, seed: str, *inputs: str) -> None:
    """One of the two stages."""
    out = Path(folder)
    if stage == "unary":
        soft, start = inputs
        unary(devkit, soft, start, out / "unary", int(seed))
    else:
        piecewise(devkit, out / "unary" / "model.safetensors", out / "piecewise.safetensors")
        joint(devkit, out / "piecewise.safetensors", out / "joint", int(seed))


if __name__ == "__main__":
    main(*sys.argv[1:])
