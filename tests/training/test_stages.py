"""Both stages learn, resume to the very same losses, keep the best and stop on bad losses."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from napari_deepcrf.data.copies import ReducedCopies
from napari_deepcrf.data.samples import VOID
from napari_deepcrf.data.voc import VOCDataset
from napari_deepcrf.models import DeepCRF
from napari_deepcrf.models.backbone import fold_batch_norm
from napari_deepcrf.models.unary import UnaryNetwork
from napari_deepcrf.models.vgg16 import VGG16
from napari_deepcrf.training import precision
from napari_deepcrf.training.events import Event, Finished, StageStarted, StepDone, Validated
from napari_deepcrf.training.joint_stage import JointTrainer, marginal_loss
from napari_deepcrf.training.loop import TrainingDivergedError
from napari_deepcrf.training.state import read_state, write_state
from napari_deepcrf.training.unary_stage import UnaryTrainer, sample_scores


@pytest.fixture
def train(voc_root: Path) -> ReducedCopies:
    return ReducedCopies(VOCDataset(voc_root, "train"), 48)


@pytest.fixture
def validation(voc_root: Path) -> ReducedCopies:
    return ReducedCopies(VOCDataset(voc_root, "val"), 48)


@pytest.fixture
def model(tiny_model: DeepCRF) -> DeepCRF:
    """What stage 2 starts from: batch norm folded away."""
    tiny_model.network.backbone = fold_batch_norm(tiny_model.network.backbone)
    return tiny_model


def losses(events: Iterator[Event]) -> list[float]:
    return [event.loss for event in events if isinstance(event, StepDone)]


def test_unary_stage_lowers_the_loss(tiny_model, train, tiny_unary):
    stage = replace(tiny_unary, iterations=25, decay=0)
    values = losses(UnaryTrainer(tiny_model, train, stage).events())
    assert len(values) == 25
    assert sum(values[-3:]) < 0.5 * sum(values[:3])


def test_joint_stage_lowers_the_loss_and_moves_every_parameter(model, train, tiny_joint):
    stage = replace(tiny_joint, iterations=24, flip=False, batch_size=4, learning_rate=3e-3)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    values = losses(JointTrainer(model, train, stage).events())
    assert sum(values[-3:]) < 0.5 * sum(values[:3])
    still = [name for name, value in model.state_dict().items() if torch.equal(value, before[name])]
    assert still == []


def test_unary_stage_resumes_to_the_same_losses(
    tiny_model, train, validation, tiny_unary, tmp_path
):
    start = {name: value.clone() for name, value in tiny_model.state_dict().items()}
    whole = UnaryTrainer(tiny_model, train, tiny_unary, validation=validation)
    expected = losses(whole.events())

    tiny_model.load_state_dict(start)
    first = UnaryTrainer(tiny_model, train, tiny_unary, validation=validation, folder=tmp_path)
    events = first.events()
    seen = []
    while len(seen) < 5:  # the last checkpoint is that of step 4
        event = next(events)
        if isinstance(event, StepDone):
            seen.append(event.loss)
    events.close()

    tiny_model.load_state_dict(start)
    second = UnaryTrainer(tiny_model, train, tiny_unary, validation=validation, folder=tmp_path)
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


def test_cancel_keeps_the_best_so_far(tiny_model, train, validation, tiny_unary):
    trainer = UnaryTrainer(tiny_model, train, tiny_unary, validation=validation)
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


def test_a_bad_loss_names_its_batch_and_keeps_the_weights(tiny_model, train, tiny_unary, tmp_path):
    trainer = UnaryTrainer(tiny_model, train, tiny_unary, folder=tmp_path)
    good = trainer.objective.forward

    def bad(*part):
        return good(*part) * (float("nan") if trainer.step == 2 else 1.0)

    trainer.objective.forward = bad
    with pytest.raises(
        TrainingDivergedError, match=r"step 3 .* batch 2007_00000\d, 2007"
    ) as caught:
        list(trainer.events())
    assert "nan" in str(caught.value)
    tensors, values = read_state(tmp_path / "unary-last.safetensors")
    assert values["step"] == 2
    weights = trainer.network.backbone.score.weight
    assert torch.equal(tensors["network.backbone.score.weight"], weights)


def test_a_bad_batch_is_left_whole_between_checkpoints(tiny_model, train, tiny_unary, tmp_path):
    stage = replace(tiny_unary, checkpoint_every=100)
    trainer = UnaryTrainer(tiny_model, train, stage, folder=tmp_path)
    good, network = trainer.objective.forward, tiny_model.network

    def bad(*part):
        loss = good(*part)
        return loss * (float("inf") if trainer.step == 1 else 1.0)

    trainer.objective.forward = bad
    events = trainer.events()
    step_one = next(event for event in events if isinstance(event, StepDone))
    assert step_one.step == 1
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(TrainingDivergedError, match="step 2"):
        list(events)
    tensors, values = read_state(tmp_path / "unary-last.safetensors")
    assert values["step"] == 1
    for name, value in network.state_dict().items():  # batch norm's statistics among them
        assert torch.equal(value, before[name]), name
        assert torch.equal(value, tensors[f"network.{name}"]), name


def step_by_step(model, trainer, count):
    """Losses of some steps and the weights behind them."""
    values = []
    for event in trainer.events():
        if isinstance(event, StepDone):
            values.append(event.loss)
            if event.step == count:
                break
    return values, {name: value.clone() for name, value in model.state_dict().items()}


@pytest.mark.parametrize("micro_batch", [1, 2])
def test_added_up_gradients_are_those_of_the_whole_batch(model, train, tiny_unary, micro_batch):
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout2d):
            module.p = 0.0
    start = {name: value.clone() for name, value in model.state_dict().items()}
    stage = replace(tiny_unary, optimizer="sgd", learning_rate=0.05, top_learning_rate=0.05)
    whole, weights = step_by_step(model, UnaryTrainer(model, train, stage), 3)
    model.load_state_dict(start)
    parts = UnaryTrainer(model, train, replace(stage, micro_batch=micro_batch))
    sizes = []
    parts.objective.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0].names)))
    losses_of_parts, weights_of_parts = step_by_step(model, parts, 3)
    assert max(sizes) == micro_batch
    assert sum(sizes) == 3 * stage.batch_size
    assert losses_of_parts == pytest.approx(whole, rel=1e-5)
    for name, value in weights.items():
        torch.testing.assert_close(weights_of_parts[name], value, rtol=1e-4, atol=1e-6)
    assert not torch.equal(
        weights["network.backbone.score.weight"], start["network.backbone.score.weight"]
    )


def test_added_up_gradients_resume_to_the_same_losses(model, train, tiny_unary, tmp_path):
    start = {name: value.clone() for name, value in model.state_dict().items()}
    stage = replace(tiny_unary, micro_batch=2)
    expected = losses(UnaryTrainer(model, train, stage).events())
    model.load_state_dict(start)
    step_by_step(model, UnaryTrainer(model, train, stage, folder=tmp_path), 5)
    model.load_state_dict(start)
    assert losses(UnaryTrainer(model, train, stage, folder=tmp_path).events()) == expected[4:]


@pytest.mark.parametrize("stage_name", ["unary", "joint"])
def test_mixed_precision_is_the_networks_alone(
    stage_name, model, train, tiny_unary, tiny_joint, monkeypatch
):
    monkeypatch.setattr(precision, "half_precision", lambda device: torch.bfloat16)
    seen = {}

    def note_scores(_, inputs, scores):
        seen["network"] = scores.dtype

    def note_input(_, inputs):
        seen["crf"] = inputs[0].dtype

    model.network.backbone.register_forward_hook(note_scores)
    model.crf.register_forward_pre_hook(note_input)
    if stage_name == "unary":
        trainer = UnaryTrainer(model, train, replace(tiny_unary, iterations=2))
    else:
        trainer = JointTrainer(model, train, replace(tiny_joint, iterations=2, measured_train=0))
    values = losses(trainer.events())
    assert all(0 < value < 10 for value in values)
    assert seen.pop("network") is torch.bfloat16
    assert seen == ({} if stage_name == "unary" else {"crf": torch.float32})
    assert all(value.dtype is torch.float32 for value in model.parameters())
    assert not trainer.scaler.is_enabled()


def test_float16_gradients_that_overflow_skip_their_step(model, train, tiny_unary, tmp_path):
    stage = replace(tiny_unary, precision="float16", iterations=3, checkpoint_every=1)
    trainer = UnaryTrainer(model, train, stage, folder=tmp_path)
    trainer.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127, growth_interval=1000)
    start = {name: value.clone() for name, value in model.state_dict().items()}
    step_by_step(model, trainer, 1)
    assert trainer.scaler.get_scale() == 2.0**126
    for name, value in model.state_dict().items():
        assert torch.equal(value, start[name]), name
    trainer.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**8)
    rest = losses(trainer.events())
    assert all(0 < value < 10 for value in rest)
    again = UnaryTrainer(model, train, stage, folder=tmp_path)
    assert losses(again.events()) == []
    assert again.scaler.get_scale() == 2.0**8


def test_float16_gradients_that_no_scale_can_help_have_diverged(model, train, tiny_unary):
    trainer = UnaryTrainer(model, train, replace(tiny_unary, precision="float16"))
    weight = model.network.backbone.score.weight
    trainer.objective.forward = lambda *_: (weight * 1e30).square().sum() * 0 + weight.sum()
    trainer.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**-10)
    with pytest.raises(TrainingDivergedError, match="gradient norm"):
        list(trainer.events())


def test_distillation_needs_soft_labels(tiny_model, train, tiny_unary):
    with pytest.raises(ValueError, match="soft: expected soft labels"):
        UnaryTrainer(tiny_model, train, replace(tiny_unary, distillation=0.5))


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


def test_the_state_of_another_network_is_refused(model, train, tiny_unary, tmp_path):
    step_by_step(model, UnaryTrainer(model, train, tiny_unary, folder=tmp_path), 3)
    other = VGG16(21, width=0.12, head="smallfov")
    wider = DeepCRF(UnaryNetwork(other, input_size=48), model.crf, model.class_names)
    with pytest.raises(ValueError, match="another architecture: backbone") as caught:
        list(UnaryTrainer(wider, train, tiny_unary, folder=tmp_path).events())
    assert "\n" not in str(caught.value)


def test_what_was_read_holds_no_file(tmp_path):
    """Windows lets nobody replace a file that is mapped, and a run replaces its state."""
    path = tmp_path / "unary-last.safetensors"
    write_state(path, {"best.weight": torch.ones(1000)}, {})
    tensors, _ = read_state(path)
    with path.open("r+b") as file:
        file.write(bytes(path.stat().st_size))
    assert torch.equal(tensors["best.weight"], torch.ones(1000))


def test_a_damaged_state_is_refused(tmp_path):
    path = tmp_path / "unary-last.safetensors"
    path.write_bytes(b"\x10\x00\x00\x00\x00\x00\x00\x00 not json")
    with pytest.raises(ValueError, match="expected the state of a training run"):
        read_state(path)
