"""Both stages learn, resume to the very same losses, keep the best and stop on bad losses."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from napari_deepcrf.crf import CRFParameters, DenseCRF
from napari_deepcrf.data.copies import ReducedCopies
from napari_deepcrf.data.samples import VOID
from napari_deepcrf.data.voc import VOC_CLASSES, VOCDataset
from napari_deepcrf.models import DeepCRF
from napari_deepcrf.models.backbone import fold_batch_norm
from napari_deepcrf.training.events import Event, Finished, StageStarted, StepDone, Validated
from napari_deepcrf.training.joint_stage import JointTrainer, marginal_loss
from napari_deepcrf.training.loop import TrainingDivergedError
from napari_deepcrf.training.state import read_state
from napari_deepcrf.training.unary_stage import UnaryTrainer, sample_scores


@pytest.fixture
def train(voc_root: Path) -> ReducedCopies:
    return ReducedCopies(VOCDataset(voc_root, "train"), 48)


@pytest.fixture
def validation(voc_root: Path) -> ReducedCopies:
    return ReducedCopies(VOCDataset(voc_root, "val"), 48)


@pytest.fixture
def model(tiny_network) -> DeepCRF:
    weak = CRFParameters(w_spatial=0.5, theta_gamma=2, w_bilateral=1, theta_alpha=10)
    tiny_network.backbone = fold_batch_norm(tiny_network.backbone)
    return DeepCRF(tiny_network, DenseCRF(weak), VOC_CLASSES)


def losses(events: Iterator[Event]) -> list[float]:
    return [event.loss for event in events if isinstance(event, StepDone)]


def test_unary_stage_lowers_the_loss(tiny_network, train, tiny_unary):
    stage = replace(tiny_unary, iterations=25, decay=0)
    values = losses(UnaryTrainer(tiny_network, train, stage).events())
    assert len(values) == 25
    assert sum(values[-3:]) < 0.5 * sum(values[:3])


def test_joint_stage_lowers_the_loss_and_moves_every_parameter(model, train, tiny_joint):
    stage = replace(tiny_joint, iterations=12, flip=False, batch_size=4, learning_rate=3e-3)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    values = losses(JointTrainer(model, train, stage).events())
    assert values[-1] < 0.8 * values[0]
    still = [name for name, value in model.state_dict().items() if torch.equal(value, before[name])]
    assert still == []


def test_unary_stage_resumes_to_the_same_losses(
    tiny_network, train, validation, tiny_unary, tmp_path
):
    start = {name: value.clone() for name, value in tiny_network.state_dict().items()}
    whole = UnaryTrainer(tiny_network, train, tiny_unary, validation=validation)
    expected = losses(whole.events())

    tiny_network.load_state_dict(start)
    first = UnaryTrainer(tiny_network, train, tiny_unary, validation=validation, folder=tmp_path)
    events = first.events()
    seen = []
    while len(seen) < 5:  # the last checkpoint is that of step 4
        event = next(events)
        if isinstance(event, StepDone):
            seen.append(event.loss)
    events.close()

    tiny_network.load_state_dict(start)
    second = UnaryTrainer(tiny_network, train, tiny_unary, validation=validation, folder=tmp_path)
    rest = list(second.events())
    assert rest[0] == StageStarted("unary", 4, 6)
    assert seen == expected[:5]
    assert losses(iter(rest)) == expected[4:]
    assert second.best_step == whole.best_step
    for name, value in second.best.items():
        assert torch.equal(value, whole.best[name]), name


def test_joint_stage_resumes_to_the_same_losses(model, train, tiny_joint, tmp_path):
    start = {name: value.clone() for name, value in model.state_dict().items()}
    expected = losses(JointTrainer(model, train, tiny_joint).events())

    model.load_state_dict(start)
    short = replace(tiny_joint, iterations=2)
    assert losses(JointTrainer(model, train, short, folder=tmp_path).events()) == expected[:2]
    model.load_state_dict(start)
    rest = losses(JointTrainer(model, train, tiny_joint, folder=tmp_path).events())
    assert rest == expected[2:]


def test_cancel_keeps_the_best_so_far(tiny_network, train, validation, tiny_unary):
    trainer = UnaryTrainer(tiny_network, train, tiny_unary, validation=validation)
    events = trainer.events()
    for event in events:
        if isinstance(event, Validated) and event.step == 3:
            break
    events.close()
    assert trainer.best_step in (0, 3)
    trainer.restore_best()
    assert trainer.measure().mean == pytest.approx(trainer.best_mean_iou)


def test_failing_to_improve_never_replaces_better_weights(
    model, train, validation, tiny_joint, tmp_path
):
    stage = replace(tiny_joint, learning_rate=5.0, top_learning_rate=5.0, iterations=2)
    trainer = JointTrainer(model, train, stage, validation=validation, folder=tmp_path)
    start = {name: value.clone() for name, value in model.state_dict().items()}
    trainer.best_mean_iou = 2.0  # as if the start were better than anything that can follow
    finished = [event for event in trainer.events() if isinstance(event, Finished)]
    assert finished[0].best_mean_iou == 2.0
    assert not (tmp_path / "joint-best.safetensors").exists()
    trainer.restore_best()
    assert all(torch.equal(value, start[name]) for name, value in model.state_dict().items())


def test_a_bad_loss_names_its_batch_and_keeps_the_weights(
    tiny_network, train, tiny_unary, tmp_path
):
    trainer = UnaryTrainer(tiny_network, train, tiny_unary, folder=tmp_path)
    good = trainer.backward

    def bad(batch):
        return good(batch) * (float("nan") if trainer.step == 2 else 1.0)

    trainer.backward = bad
    with pytest.raises(
        TrainingDivergedError, match=r"step 3 .* batch 2007_00000\d, 2007"
    ) as caught:
        list(trainer.events())
    assert "nan" in str(caught.value)
    tensors, values = read_state(tmp_path / "unary-last.safetensors")
    assert values["step"] == 2
    weights = trainer.network.backbone.score.weight
    assert torch.equal(tensors["network.backbone.score.weight"], weights)


def test_distillation_needs_soft_labels(tiny_network, train, tiny_unary):
    with pytest.raises(ValueError, match="soft: expected soft labels"):
        UnaryTrainer(tiny_network, train, replace(tiny_unary, distillation=0.5))


def test_marginal_loss_leaves_void_pixels_out():
    marginals = torch.tensor([[[[0.25, 0.9]], [[0.75, 0.1]]]])
    labels = torch.tensor([[[1, VOID]]], dtype=torch.uint8)
    assert float(marginal_loss(marginals, labels)) == pytest.approx(
        -torch.tensor(0.75).log().item()
    )


def test_sampled_scores_are_those_of_the_bilinear_enlargement():
    scores = torch.randn(2, 3, 6, 7, generator=torch.Generator().manual_seed(0))
    whole = torch.nn.functional.interpolate(scores, (41, 53), mode="bilinear", align_corners=False)
    torch.testing.assert_close(sample_scores(scores, (41, 53), 4), whole[:, :, ::4, ::4])


def test_a_damaged_state_is_refused(tmp_path):
    path = tmp_path / "unary-last.safetensors"
    path.write_bytes(b"\x10\x00\x00\x00\x00\x00\x00\x00 not json")
    with pytest.raises(ValueError, match="not the state of a training run"):
        read_state(path)
