"""Learning new classes from scribbles: the fit, both stages, and the recipe as a user meets it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from napari_deepcrf.crf import CRFParameters, DenseCRF
from napari_deepcrf.data.arrays import ArrayDataset
from napari_deepcrf.data.samples import VOID
from napari_deepcrf.models import VGG16, DeepCRF
from napari_deepcrf.models.fine_head import FineHead, FineUnaryNetwork
from napari_deepcrf.training import TrainingRun, evaluate, fit
from napari_deepcrf.training.config import named_config
from napari_deepcrf.training.events import CheckpointSaved, Finished, StepDone, Validated
from napari_deepcrf.training.records import read_events
from napari_deepcrf.training.scribble_config import ScribbleConfig, adapted_crf
from napari_deepcrf.training.scribble_first_fit import LOCAL_MAPS, credibility, first_fit
from napari_deepcrf.training.scribble_fit import (
    MARGIN,
    PIXELS_PER_CLASS,
    Points,
    Strokes,
    centre_on_strokes,
    class_balanced,
    design,
    fit_to_strokes,
    fit_weights,
    random_points,
)
from napari_deepcrf.training.scribble_stages import ScribbleTrainer

SHORT = replace(
    named_config("scribbles"),
    scribbles=ScribbleConfig(rounds=1, taught_pixels=300, iterations=2),
)


def blobs(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(45, 61, 3) image of bright discs on a dark ground, its scribbles on one disc, the truth."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:45, :61]
    truth = np.zeros((45, 61), bool)
    for row, column in ((12, 12), (30, 25), (14, 46)):
        truth |= (rows - row) ** 2 + (columns - column) ** 2 < 36
    image = (40 + 60 * truth[..., None] + rng.integers(0, 12, (45, 61, 3))).astype(np.uint8)
    scribbles = np.zeros((45, 61), np.uint8)
    scribbles[11:14, 10:15] = 2
    scribbles[40:42, 5:50] = 1
    return image, scribbles, truth


def start(num_classes: int = 2) -> DeepCRF:
    torch.manual_seed(0)
    network = FineUnaryNetwork(VGG16(num_classes, width=0.05, head="smallfov"), input_size=33)
    names = tuple(f"class {n + 1}" for n in range(num_classes))
    return DeepCRF(network, DenseCRF(), names).eval()


@pytest.fixture(autouse=True)
def small_view(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("napari_deepcrf.models.fine_head.SMALLEST_VIEW", 64)


def test_points_read_a_map_as_its_enlargement_has_it() -> None:
    maps = torch.randn(1, 3, 6, 8, generator=torch.Generator().manual_seed(0))
    large = torch.nn.functional.interpolate(maps, (45, 61), mode="bilinear", align_corners=False)
    points = Points((45, 61), torch.tensor([0, 17, 44]), torch.tensor([3, 0, 60]))
    expected = large[0, :, points.rows, points.columns].T
    torch.testing.assert_close(points.sample(maps), expected)


def test_strokes_are_thinned_but_keep_small_classes_whole() -> None:
    labels = torch.full((60, 70), VOID, dtype=torch.uint8)
    labels[:40] = 0
    labels[50, 3:10] = 2
    strokes = Strokes.of(labels)
    assert torch.bincount(strokes.classes).tolist() == [PIXELS_PER_CLASS, 0, 7]
    found = labels[strokes.points.rows, strokes.points.columns]
    assert torch.equal(found.long(), strokes.classes)
    assert class_balanced(strokes.classes)[strokes.classes == 2].sum() == pytest.approx(0.5)


def test_a_fit_puts_its_margin_on_the_strokes_and_leaves_absent_classes_behind() -> None:
    generator = torch.Generator().manual_seed(0)
    maps = [torch.randn(1, 4, 30, 40, generator=generator) * 0.3]
    maps[0][:, 1, :, 20:] += 1
    labels = torch.full((30, 40), VOID, dtype=torch.uint8)
    labels[4, 2:15] = 0
    labels[9, 25:38] = 3
    strokes = [Strokes.of(labels)]
    head = FineHead([4], 5)
    head.calibrate([maps])
    centre_on_strokes(head, [maps], strokes)
    rows = design(head, maps, strokes[0].points)
    assert fit_to_strokes(head, [maps], strokes) < 0.5 * np.log(2)
    scores = head(maps, (30, 40))[0].detach()
    at = scores[:, strokes[0].points.rows, strokes[0].points.columns]
    weight = torch.cat([share.weight for share in head.shares], 1).detach()
    torch.testing.assert_close(at.T, rows @ weight.T + head.bias.detach(), atol=1e-4, rtol=1e-4)
    right = at.gather(0, strokes[0].classes[None])[0]
    wrong = at[3 - strokes[0].classes, torch.arange(at.shape[1])]
    assert float((right - wrong).mean()) == pytest.approx(MARGIN, rel=0.05)
    assert (scores[[1, 2, 4]].amax(0) < scores[[0, 3]].amax(0) - 10).all()


@pytest.mark.parametrize("by_local", [True, False])
def test_the_image_says_whether_a_fit_may_use_what_is_not_local(by_local: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    maps = [0.3 * torch.randn(1, 2, 30, 40, generator=generator) for _ in range(LOCAL_MAPS + 1)]
    dots = torch.rand(30, 40, generator=generator) < 0.3
    dots[3:6], dots[24:27] = False, True
    half = (torch.arange(30) > 14)[:, None].expand(30, 40)
    maps[0][0, 0] += dots.float()
    maps[-1] = half[None, None].repeat(1, 2, 1, 1) + 0.01 * maps[-1]
    labels = torch.full((30, 40), VOID, dtype=torch.uint8)
    labels[4, 5:35], labels[25, 5:35] = 0, 1  # told apart by the dots and by the halves
    strokes = [Strokes.of(labels)]
    head = FineHead([2] * len(maps), 2)
    head.calibrate([maps])
    centre_on_strokes(head, [maps], strokes)
    marginals = torch.nn.functional.one_hot((dots if by_local else half).long()).permute(2, 0, 1)
    with torch.no_grad():
        first_fit(head, [maps], strokes, lambda: [(head(maps, (30, 40)), marginals[None])])
    assert (head.shares[-1].weight.abs().max() == 0) == by_local
    assert head.shares[0].weight.abs().max() > 0


def test_credibility_is_of_the_borders_and_of_the_strokes() -> None:
    labels = torch.full((20, 10), VOID, dtype=torch.uint8)
    labels[2], labels[17] = 0, 1
    strokes = [Strokes.of(labels)]
    scores = torch.zeros(1, 2, 20, 10)
    scores[:, 1, 10:] = 1.0
    scores[:, 0, :10] = 1.0
    sure = 1 / (1 + np.exp(-1.0))
    assert credibility([(scores, scores)], strokes) == pytest.approx(sure)
    assert credibility([(scores, -scores)], strokes) == pytest.approx(-sure)
    assert credibility([(scores, torch.ones(1, 2, 20, 10))], strokes) == pytest.approx(0)


def test_both_stages_find_what_no_stroke_touches() -> None:
    image, scribbles, truth = blobs()
    seen: list[object] = []
    model = fit([(image, scribbles)], init=start(), config=SHORT, on_event=seen.append)
    assert isinstance(model.network, FineUnaryNetwork)
    steps = [(event.stage, event.step) for event in seen if isinstance(event, StepDone)]
    assert steps == [("unary", 1), ("unary", 2), ("unary", 3), ("joint", 1), ("joint", 2)]
    rates = [event.learning_rate for event in seen if isinstance(event, StepDone)]
    assert rates == [0.0, 0.0, 0.0, 1e-3, 1e-3]
    assert [event.stage for event in seen if isinstance(event, Finished)] == ["unary", "joint"]
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    with torch.inference_mode():
        found = model(pixels)[0].argmax(0).numpy() == 1
    assert (found & truth).sum() / (found | truth).sum() > 0.8
    assert model.crf.crf_parameters() != adapted_crf(
        ScribbleConfig().crf, ArrayDataset([(image, scribbles)])
    )


def test_a_run_validates_keeps_its_stages_and_draws_curves(tmp_path: Path) -> None:
    train, validation = (ArrayDataset([blobs(seed)[:2]]) for seed in (0, 1))
    run = TrainingRun(SHORT, train, validation=validation, init=start(), folder=tmp_path)
    events = list(run.events())
    measured = [event for event in events if isinstance(event, Validated)]
    assert [(e.stage, e.step) for e in measured] == [
        ("unary", 2),
        ("unary", 3),
        ("joint", 0),
        ("joint", 2),
    ]
    finished = [event for event in events if isinstance(event, Finished)]
    for end in finished:
        of_stage = [event for event in measured if event.stage == end.stage]
        assert end.best_mean_iou == max(event.mean_iou for event in of_stage)
        assert end.best_step == [event.step for event in of_stage if event.best][-1]
    assert evaluate(run.model, validation).joint.mean == pytest.approx(finished[1].best_mean_iou)
    assert [e.path.name for e in events if isinstance(e, CheckpointSaved)] == [
        "unary-best.safetensors",
        "joint-best.safetensors",
    ]
    last = DeepCRF.load(tmp_path / "joint-best.safetensors").state_dict()
    assert all(torch.equal(value, last[name]) for name, value in run.model.state_dict().items())
    for name in ("curves.svg", "iou-train.md", "iou-validation.csv", "gallery-worst.png"):
        assert (tmp_path / name).stat().st_size > 0


def test_worse_weights_never_replace_better_ones() -> None:
    dataset = ArrayDataset([blobs()[:2]])
    config = replace(ScribbleConfig(), rounds=0, iterations=2, validate_every=1)
    model = start()
    trainer = ScribbleTrainer(model, dataset, config, validation=dataset)
    before = {}
    for event in trainer.events():
        if isinstance(event, Validated) and event.stage == "joint":
            assert event.best == (event.step == 0)
            if event.best:
                before = {name: value.clone() for name, value in model.state_dict().items()}
            with torch.no_grad():  # every later score is that of the other class
                model.network.fine.bias += torch.tensor([-1e4, 1e4])
        end = event
    assert isinstance(end, Finished)
    assert end.best_step == 0
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_run_that_is_cut_off_starts_again_to_the_same_losses(tmp_path: Path) -> None:
    dataset, path = ArrayDataset([blobs()[:2]]), tmp_path / "model.safetensors"
    first = TrainingRun(SHORT, dataset, init=start(), folder=tmp_path)
    for _ in first.events():
        pass
    whole, losses = path.read_bytes(), losses_of(tmp_path)
    assert len(losses) == 5
    events = TrainingRun(SHORT, dataset, init=start(), folder=tmp_path).events()
    for event in events:
        if isinstance(event, StepDone) and event.step == 2:
            break
    events.close()
    assert path.read_bytes() == whole  # what was not through stage 1 does not replace it
    for _ in TrainingRun(SHORT, dataset, init=start(), folder=tmp_path).events():
        pass
    assert losses_of(tmp_path) == losses
    again = DeepCRF.load(path).state_dict()
    for name, value in first.model.state_dict().items():
        assert torch.equal(value, again[name]), name


def losses_of(folder: Path) -> list[tuple[str, int, float]]:
    lines = read_events(folder / "events.jsonl")
    return [(x["stage"], x["step"], x["loss"]) for x in lines if x["event"] == "StepDone"]


def test_a_fit_makes_everything_on_the_strokes_own_device() -> None:
    maps = [torch.randn(1, 4, 30, 40, generator=torch.Generator().manual_seed(0))]
    labels = torch.full((30, 40), VOID, dtype=torch.uint8)
    labels[4, 2:15], labels[9, 25:38] = 0, 1
    head = FineHead([4], 2)
    with torch.device("meta"):  # another device than the data's: mixing the two raises
        strokes = [Strokes.of(labels)]
        centre_on_strokes(head, [maps], strokes)
        fit_to_strokes(head, [maps], strokes)
        points = random_points((30, 40), 50)
        rows, targets = design(head, maps, points), points.sample(torch.rand_like(maps[0]))[:, :2]
        fit_weights(head, rows, targets, torch.full((50,), 1 / 50, device="cpu"))
    assert torch.isfinite(head(maps, (30, 40))).all()


def test_training_is_the_same_every_time_and_leaves_its_start_alone() -> None:
    image, scribbles, _ = blobs()
    first = start()
    before = {name: value.clone() for name, value in first.state_dict().items()}
    one, two = (fit([(image, scribbles)], init=first, config=SHORT) for _ in range(2))
    for name, value in one.state_dict().items():
        assert torch.equal(value, two.state_dict()[name]), name
    for name, value in first.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_several_images_teach_one_layer() -> None:
    pairs = [blobs(0)[:2], blobs(1)[:2]]
    steps: list[StepDone] = []
    model = fit(
        pairs,
        init=start(),
        config=SHORT,
        on_event=lambda e: steps.append(e) if isinstance(e, StepDone) else None,
    )
    assert {name for step in steps for name in step.names} == {"image 1", "image 2"}
    assert model.class_names == ("class 1", "class 2")


def test_the_crf_keeps_its_share_of_the_image() -> None:
    image, scribbles, _ = blobs()
    params = CRFParameters(theta_alpha=60.0)
    adapted = adapted_crf(params, ArrayDataset([(image, scribbles)]))
    assert adapted.theta_alpha == pytest.approx(6.1)
    assert replace(adapted, theta_alpha=60.0) == params


@pytest.mark.parametrize(("name", "value"), [("rounds", -1), ("crf_learning_rate", 0.0)])
def test_a_bad_setting_is_named(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=name):
        ScribbleConfig(**{name: value})  # type: ignore[arg-type]
