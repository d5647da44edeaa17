import numpy as np
import pytest
import torch
from PIL import Image

from napari_deepcrf.interrupt import Interrupted, interruptible
from napari_deepcrf.models.fine_head import FineHead
from napari_deepcrf.session import ImageSource, Progress
from napari_deepcrf.session.annotations import AnnotationClass
from napari_deepcrf.session.learning import Learning
from napari_deepcrf.session.live import fit_scores
from napari_deepcrf.session.training import LabelledImage, TrainingDone
from napari_deepcrf.training.events import Preview, StepDone, Validated


@pytest.fixture(autouse=True)
def few_small_steps(shorten_recipe):
    unary = {"iterations": 6, "batch_size": 2}
    shorten_recipe("scribbles", unary=unary, joint={"iterations": 3}, crop=33)


@pytest.fixture
def scribbles(image):
    labels = np.zeros(image.shape, np.uint8)
    labels[4:8, 5:40] = 1
    labels[20:25, 5:40] = 2
    labels[30:33, 10:50] = 3
    return labels


@pytest.fixture
def learning(session):
    learning = Learning(session)
    names = session.class_names
    learning.classes.replace_all(AnnotationClass(n, (i, 0, 0)) for i, n in enumerate(names))
    return learning


def take(learning, job, until=None):
    """Run a job as a window would; the events that were still wanted."""
    events = []
    for event in job.steps():
        if learning.session.receive(job, event):
            learning.receive(event)
            events.append(event)
        if until is not None and until(event):
            break
    return events


def parameters(model):
    return [p.detach().clone() for p in model.parameters()]


def equal(one, two):
    return all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


def test_a_training_goes_through_both_stages_and_waits_for_a_verdict(learning, image, scribbles):
    session = learning.session
    old, before = session.model, parameters(session.model)
    job = learning.train(lambda: [LabelledImage(image, scribbles)], None, "scribbles")
    events = take(learning, job)
    stages = [e.stage for e in events if isinstance(e, StepDone)]
    assert set(stages) == {"unary", "joint"}
    validated = [e for e in events if isinstance(e, Validated)]
    assert len(validated) > 4
    assert isinstance(events[-1], TrainingDone)
    assert learning.on_trial
    assert session.model is events[-1].model
    assert session.model_name == "tiny (trained)"
    assert equal(before, parameters(old))
    # PyTorch's random numbers decide whether so short a training is ever better than its start.
    better = any(e.best and e.step > 0 for e in validated)
    assert equal(before, parameters(session.model)) is not better
    learning.revert()
    assert session.model is old
    assert not learning.on_trial


def test_stop_keeps_the_best_so_far(learning, image, scribbles):
    job = learning.train(lambda: [LabelledImage(image, scribbles)], None, "scribbles")
    events = []
    for event in job.steps():
        events.append(event)
        if isinstance(event, StepDone) and event.step == 3:
            learning.stop()
    assert sum(isinstance(e, StepDone) for e in events) <= 4
    assert isinstance(events[-1], TrainingDone)
    assert events[-1].stopped


@pytest.mark.parametrize("stage", ["unary", "joint"])
def test_cancel_in_either_stage_leaves_the_model(learning, image, scribbles, stage):
    session = learning.session
    old, before = session.model, parameters(session.model)
    job = learning.train(lambda: [LabelledImage(image, scribbles)], None, "scribbles")
    take(learning, job, until=lambda e: isinstance(e, StepDone) and e.stage == stage)
    session.cancel(job)
    assert session.model is old
    assert equal(before, parameters(old))
    assert not learning.on_trial


def test_a_class_of_ones_own_gets_an_output(learning, image, scribbles):
    learning.classes.add("lizard", (9, 9, 9))
    scribbles[36:39] = 4
    job = learning.train(lambda: [LabelledImage(image, scribbles)], None, "scribbles")
    take(learning, job, until=lambda e: isinstance(e, StepDone) and learning.stop())
    assert learning.session.class_names == ("background", "cat", "dog", "lizard")


def test_previews_come_while_it_trains(learning, image, scribbles, monkeypatch):
    monkeypatch.setattr("napari_deepcrf.session.training.PREVIEW_EVERY_S", 0.0)
    job = learning.train(lambda: [LabelledImage(image, scribbles)], None, "scribbles")
    seen = take(learning, job, until=lambda e: isinstance(e, Preview))
    assert seen[-1].labels.shape == image.shape
    assert seen[-1].key == learning.session.image.key


def folder_of_pairs(root, scribbles, count):
    rng = np.random.default_rng(0)
    for name in ("images", "labels"):
        (root / name).mkdir()
    for n in range(count):
        pixels = rng.integers(0, 256, (*scribbles.shape, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / "images" / f"{n}.png")
        Image.fromarray(scribbles).save(root / "labels" / f"{n}.png")
    (root / "classes.txt").write_text("background\ncat\ndog\n")
    return root


@pytest.mark.parametrize(("count", "trained"), [(3, "3 images"), (11, "9 images")])
def test_a_folder_of_pairs_has_its_curves(learning, scribbles, tmp_path, count, trained):
    folder = folder_of_pairs(tmp_path, scribbles, count)
    events = take(learning, learning.train(None, folder, "scribbles"))
    told = [event.text for event in events if isinstance(event, Progress)]
    assert f"Training on {trained}; the IoU is that of " in told[-1]
    assert ("2 held out" in told[-1]) == (count == 11)
    for stage in ("unary", "joint"):
        measured = [e for e in events if isinstance(e, Validated) and e.stage == stage]
        assert len(measured) > 2
        assert all(0 <= event.mean_iou <= 1 for event in measured)


def test_a_training_stops_inside_a_step(learning, image, scribbles):
    job = learning.train(lambda: [LabelledImage(image, scribbles)], None, "scribbles")
    steps = job.steps()
    with interruptible(job.cancelled):
        next(event for event in steps if isinstance(event, StepDone))
        job.cancelled.set()
        with pytest.raises(Interrupted):
            list(steps)


def test_bad_data_is_named_before_training(learning, image):
    with pytest.raises(ValueError, match=r"^annotations: expected"):
        learning.train(None, None, "scribbles")
    empty = LabelledImage(image, np.zeros(image.shape, np.uint8))
    small = LabelledImage(image, np.ones((3, 3), np.uint8))
    with pytest.raises(ValueError, match=r"2 problems.*no labelled pixel.*labels are 3×3"):
        take(learning, learning.train(lambda: [empty, small], None, "scribbles"))


def test_the_live_fit_follows_the_strokes(learning, scribbles):
    rng = np.random.default_rng(0)
    pixels = np.full((41, 53, 3), 40, np.uint8)
    pixels[:, 26:] = 210
    pixels = (pixels + rng.integers(0, 20, pixels.shape)).astype(np.uint8)
    session = learning.session
    session.choose_image(ImageSource("halves", "halves", (41, 53), lambda: pixels))
    strokes = np.zeros((41, 53), np.uint8)
    strokes[5:35, 4:8] = 1
    strokes[5:35, 45:49] = 3
    take(learning, learning.live(strokes))
    result = session.result
    assert session.fresh
    assert (result.labels[:, :16] == 0).mean() > 0.95
    assert (result.labels[:, -16:] == 2).mean() > 0.95
    lattices = session.cache._prepared.kernels
    strokes[1:3, 10:20] = 1
    job = learning.live(strokes)
    assert not session.fresh
    take(learning, job)
    assert session.fresh
    assert session.cache._prepared.kernels == lattices
    learning.end_live()
    assert not session.fresh


def test_what_live_mode_sees_is_ready_before_the_strokes(learning, scribbles):
    take(learning, learning.prepare_live())
    features = learning._features
    assert learning.prepare_live() is None
    take(learning, learning.live(scribbles))
    assert learning._features is features
    assert learning.session.fresh
    learning.session.choose_model("other", learning.session.model)
    assert learning.prepare_live() is not None


def test_the_live_fit_needs_two_classes(learning, scribbles):
    with pytest.raises(ValueError, match=r"^scribbles: expected"):
        learning.live(np.where(scribbles == 1, 1, 0))


def test_a_fit_separates_what_is_separable():
    maps = [torch.zeros(1, 2, 12, 16), torch.zeros(1, 2, 6, 8)]
    for one in maps:
        half = one.shape[3] // 2
        one[0, 0, :, :half] = 1
        one[0, 1, :, half:] = 1
    head = FineHead([2, 2], 2)
    strokes = np.zeros((48, 64), np.uint8)
    strokes[10:12, 5:20] = 2
    strokes[40:42, 45:60] = 4
    scores = fit_scores(head, maps, strokes)
    assert scores.shape == (2, 48, 64)  # of the two classes painted, in their order
    labels = scores.argmax(0)
    assert (labels[:, :28] == 0).all()
    assert (labels[:, -28:] == 1).all()
    np.testing.assert_array_equal(fit_scores(head, maps, strokes // 2), scores)
    assert not any(weight.any() for weight in head.parameters())
