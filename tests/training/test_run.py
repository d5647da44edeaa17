"""Whole runs: VOC folder, pairs in memory, and what bad data gets."""

import csv
import json
import random
import runpy
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from napari_deepcrf.data.arrays import ArrayDataset
from napari_deepcrf.data.samples import DatasetError
from napari_deepcrf.data.voc import VOCDataset
from napari_deepcrf.models import DeepCRF
from napari_deepcrf.training import TrainingRun, evaluate, fit, named_config
from napari_deepcrf.training.events import (
    Finished,
    Preview,
    ReportWritten,
    StageStarted,
    StepDone,
    Validated,
    event_record,
)
from napari_deepcrf.training.preview import PreviewImage
from napari_deepcrf.training.records import read_events


def test_two_stages_on_a_voc_folder(voc_root, tiny_config, tmp_path):
    train, val = VOCDataset(voc_root, "train"), VOCDataset(voc_root, "val")
    folder = tmp_path / "run"
    run = TrainingRun(tiny_config, train, validation=val, folder=folder)
    events = list(run.events())
    assert [event.stage for event in events if isinstance(event, StageStarted)] == [
        "unary",
        "joint",
    ]
    assert len([event for event in events if isinstance(event, Finished)]) == 2
    assert not run.model.training
    assert not run.model.network.backbone.batch_norm
    loaded = DeepCRF.load(folder / "model.safetensors")
    figures = evaluate(loaded, val)
    assert 0 < figures.joint.mean <= 1
    assert figures.joint.class_names[8] == "cat"
    assert "| cat |" in figures.table()

    again = list(TrainingRun(tiny_config, train, validation=val, folder=folder).events())
    assert not [event for event in again if isinstance(event, StepDone)]


def two_halves(seed=0):
    rng = np.random.default_rng(seed)
    image = np.full((45, 61, 3), 60, np.uint8)
    image[:, 30:] = 190
    image += rng.integers(0, 20, image.shape, dtype=np.uint8)
    labels = np.zeros((45, 61), int)
    labels[5:15, 3:20] = 1
    labels[20:40, 40:55] = 2
    return image, labels


def test_fit_on_scribbles_separates_two_halves(tiny_config):
    seen = []
    config = replace(tiny_config, unary=replace(tiny_config.unary, iterations=30, decay=5))
    model = fit([two_halves()], init=None, config=config, on_event=seen.append)
    assert model.class_names == ("class 1", "class 2")
    assert len([event for event in seen if isinstance(event, StepDone)]) == 34
    image = torch.from_numpy(two_halves()[0]).permute(2, 0, 1)[None].float()
    labels = model(image).argmax(1)[0].numpy()
    truth = (np.arange(61) >= 30)[None]
    assert (labels == truth).mean() > 0.9


def test_fit_keeps_a_models_layers_but_not_its_top(tiny_config):
    first = fit([two_halves()], init=None, config=replace(tiny_config, joint=None))
    image, labels = two_halves(1)
    labels[30:40, 5:15] = 3
    small = replace(tiny_config, unary=None, joint=replace(tiny_config.joint, iterations=1))
    second = fit([(image, labels)], init=first, config=small, class_names=["sky", "sea", "sand"])
    assert second.class_names == ("sky", "sea", "sand")
    body = second.network.backbone.features.conv1_1.conv.weight
    torch.testing.assert_close(
        body, first.network.backbone.features.conv1_1.conv.weight, atol=2e-3, rtol=0
    )


def test_problems_of_both_datasets_are_listed_together(voc_root, tiny_config):
    (voc_root / "JPEGImages/2007_000001.jpg").write_bytes(b"nothing")
    Image.fromarray(np.full((41, 63), 99, np.uint8)).save(
        voc_root / "SegmentationClass/2007_000004.png"
    )
    train, val = VOCDataset(voc_root, "train"), VOCDataset(voc_root, "val")
    with pytest.raises(DatasetError) as caught:
        TrainingRun(tiny_config, train, validation=val)
    unreadable, wrong = caught.value.problems
    assert unreadable.startswith("train: JPEGImages/2007_000001.jpg: expected an image file")
    assert wrong.startswith("validation: SegmentationClass/2007_000004.png: ")


def test_a_run_on_patches_gives_a_network_that_reduces_nothing(voc_root, tiny_config, tmp_path):
    train, val = VOCDataset(voc_root, "train"), VOCDataset(voc_root, "val")
    run = TrainingRun(tiny_config.on_patches(24), train, validation=val, folder=tmp_path)
    events = list(run.events())
    named = [event.names for event in events if isinstance(event, StepDone)]
    assert named[0][0].startswith("2007_")
    assert all("(rows " in name for name in named[-1])
    model = DeepCRF.load(tmp_path / "model.safetensors")
    assert model.network.input_size is None
    assert model.network.network_size(200, 300) == (200, 300)


def test_patches_are_refused_where_scribbles_teach_new_classes():
    recipe = named_config("scribbles").on_patches(64)
    with pytest.raises(ValueError, match="patch_size: expected none, as scribbles"):
        TrainingRun(recipe, ArrayDataset([two_halves()[:2]]), init="voc-compact")


def test_previews_show_the_image_that_was_given(voc_root, tiny_config):
    image, key = two_halves()[0][:41], object()
    run = TrainingRun(
        tiny_config,
        VOCDataset(voc_root, "train"),
        preview=PreviewImage(image=image, key=key, every_s=0.0),
    )
    events = list(run.events())
    previews = [event for event in events if isinstance(event, Preview)]
    assert [(event.stage, event.step) for event in previews] == [
        (event.stage, event.step) for event in events if isinstance(event, StepDone)
    ]
    assert all(event.key is key and event.labels.shape == (41, 61) for event in previews)
    with torch.inference_mode():
        pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float()
        last = run.model(pixels).argmax(1)[0].numpy()
    assert (previews[-1].labels == last).all()
    record = json.loads(json.dumps(event_record(previews[0])))
    assert record == {
        "event": "Preview",
        "stage": "unary",
        "step": 1,
        "key": str(key),
        "shape": [41, 61],
    }


def test_closing_the_generator_leaves_a_whole_model(tiny_config, voc_root):
    run = TrainingRun(tiny_config, VOCDataset(voc_root, "train"))
    events = run.events()
    for event in events:
        if isinstance(event, StepDone) and event.step == 2:
            break
    events.close()
    assert not run.model.network.backbone.batch_norm
    with torch.inference_mode():
        assert torch.isfinite(run.model(torch.rand(1, 3, 40, 50) * 255)).all()


def test_an_exception_in_on_event_stops_and_reaches_the_caller(tiny_config):
    class CancelledError(Exception):
        pass

    def stop(event):
        if isinstance(event, Validated | StepDone):
            raise CancelledError

    with pytest.raises(CancelledError):
        fit([two_halves()], init=None, config=tiny_config, on_event=stop)


def test_everything_wrong_with_the_pairs_is_listed_at_once(tiny_config):
    image, labels = two_halves()
    pairs = [
        (image, labels[:-1]),
        (image, labels * 0),
        (image, labels - 1),
        (image[:5], labels[:5]),
        (image, labels),
    ]
    with pytest.raises(DatasetError) as caught:
        fit(pairs, init=None, config=tiny_config)
    message = str(caught.value)
    assert "\n" not in message
    assert len(caught.value.problems) == 4
    assert "image 1: image is 61×45 but labels are 61×44" in message
    assert "image 2: no labelled pixel" in message
    assert "image 3: label -1 is out of range" in message
    assert "image 4: expected at least 8×8 pixels, got 5×61" in message


def test_a_class_without_a_pixel_is_named(tiny_config):
    with pytest.raises(ValueError, match="no pixel is labelled 'sand'"):
        fit([two_halves()], init=None, config=tiny_config, class_names=["sky", "sea", "sand"])


def test_numbers_with_a_gap_are_a_question_of_names(tiny_config):
    image, labels = two_halves()
    labels[labels == 2] = 9
    with pytest.raises(DatasetError, match=r"no pixel is labelled 2, 3, .*, 8: .*class_names"):
        fit([(image, labels)], init=None, config=tiny_config)


def test_a_models_own_classes_need_no_annotation(tiny_config):
    first = fit([two_halves()], init=None, config=replace(tiny_config, joint=None))
    image, labels = two_halves(1)
    small = replace(tiny_config, unary=None, joint=replace(tiny_config.joint, iterations=1))
    only_one = np.where(labels == 2, 2, 0)
    second = fit([(image, only_one)], init=first, config=small, class_names=first.class_names)
    top, before = second.network.backbone.score, first.network.backbone.score
    torch.testing.assert_close(top.weight, before.weight, atol=2e-2, rtol=0)


def test_evaluate_refuses_other_classes(tiny_config, voc_root):
    model = fit([two_halves()], init=None, config=replace(tiny_config, joint=None))
    with pytest.raises(ValueError, match="expected the dataset's 21 classes, got 2"):
        evaluate(model, VOCDataset(voc_root, "val"))


def test_a_run_leaves_its_record_and_report(voc_root, tiny_config, tmp_path):
    train, val = VOCDataset(voc_root, "train"), VOCDataset(voc_root, "val")
    run = TrainingRun(tiny_config, train, validation=val, folder=tmp_path)
    reported = [event.path for event in run.events() if isinstance(event, ReportWritten)]
    assert all(path.stat().st_size > 0 for path in reported)
    assert {path.name for path in reported} == {
        "iou-train.md",
        "iou-train.csv",
        "iou-validation.md",
        "iou-validation.csv",
        "curves.svg",
        "curves.png",
        "gallery-best.png",
        "gallery-worst.png",
    }
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["unary"]["batch_size"] == 3
    assert (config["init"], config["train_samples"], config["validation_samples"]) == (None, 4, 2)
    assert config["class_names"] == list(val.class_names)
    lines = list(read_events(tmp_path / "events.jsonl"))
    assert "NaN" not in (tmp_path / "events.jsonl").read_text()
    steps = [(line["stage"], line["step"]) for line in lines if line["event"] == "StepDone"]
    assert steps == [("unary", n) for n in range(1, 7)] + [("joint", n) for n in range(1, 5)]
    header, *rows = csv.reader((tmp_path / "iou-validation.csv").open())
    assert header[:3] == ["class", "unary", "joint"]
    assert header[3:] == ["unary, near boundaries", "joint, near boundaries"]
    assert [row[0] for row in rows] == [*val.class_names, "mean"]
    with Image.open(tmp_path / "gallery-best.png") as gallery:
        assert gallery.width == 4 * 248 + 8
    assert "| **mean** |" in (tmp_path / "iou-validation.md").read_text()
    assert (tmp_path / "curves.svg").read_text().count("<polyline") == 4
    for stage in ("unary", "joint"):
        best = DeepCRF.load(tmp_path / f"{stage}-best.safetensors")
        assert best.class_names == val.class_names
    other = TrainingRun(tiny_config, train, validation=val, folder=tmp_path, seed=1)
    with pytest.raises(ValueError, match=r"or the run that lies there, with seed 0, got seed 1"):
        next(other.events())
    assert json.loads((tmp_path / "config.json").read_text()) == config


def test_a_run_that_cannot_begin_leaves_the_earlier_model(voc_root, tiny_config, tmp_path):
    config = replace(tiny_config, joint=None, unary=replace(tiny_config.unary, iterations=2))
    train = VOCDataset(voc_root, "train")
    for _ in TrainingRun(config, train, folder=tmp_path).events():
        pass
    model = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "unary-last.safetensors").write_bytes(b"damaged")
    with pytest.raises(ValueError, match="expected the state of a training run"):
        list(TrainingRun(config, train, folder=tmp_path).events())
    assert (tmp_path / "model.safetensors").read_bytes() == model


def test_a_run_that_is_stopped_before_it_has_caught_up_leaves_the_earlier_model(
    voc_root, tiny_config, tmp_path
):
    short = replace(tiny_config.unary, iterations=2), replace(tiny_config.joint, iterations=1)
    config = replace(tiny_config, unary=short[0], joint=short[1])
    train = VOCDataset(voc_root, "train")
    for _ in TrainingRun(config, train, folder=tmp_path).events():
        pass
    path = tmp_path / "model.safetensors"
    joint = path.read_bytes()
    events = TrainingRun(config, train, folder=tmp_path).events()
    assert next(events) == StageStarted("unary", 2, 2)
    events.close()
    assert path.read_bytes() == joint
    path.unlink()
    events = TrainingRun(config, train, folder=tmp_path).events()
    next(events)
    events.close()
    assert path.is_file()  # rather that of stage 1 than none


STEPS = 11  # of run_tiny.py, six in stage 1
LATE, *OTHERS = sorted(random.Random(0).sample(range(1, STEPS), 8), reverse=True)


@pytest.mark.parametrize(
    "killed_at", [LATE, *(pytest.param(step, marks=pytest.mark.slow) for step in OTHERS)]
)
def test_a_killed_run_reads_and_ends_like_one_left_alone(killed_at, voc_root, tmp_path):
    alone, killed = tmp_path / "alone", tmp_path / "killed"
    script = Path(__file__).with_name("run_tiny.py")
    train_tiny = runpy.run_path(str(script))["train_tiny"]
    threads = torch.get_num_threads()
    process = subprocess.Popen([sys.executable, str(script), str(voc_root), str(killed)])
    while step_lines(killed) < killed_at:
        assert process.poll() is None
        time.sleep(0.002)
    process.kill()
    process.wait()
    assert not (killed / "model.safetensors").exists()
    try:
        train_tiny(voc_root, killed)
        train_tiny(voc_root, alone)
    finally:
        torch.set_num_threads(threads)
    assert losses_of(killed) == losses_of(alone)
    one, other = (DeepCRF.load(folder / "model.safetensors") for folder in (killed, alone))
    assert one.crf.crf_parameters() == other.crf.crf_parameters()
    for name, value in one.network.state_dict().items():
        assert torch.equal(value, other.network.state_dict()[name]), name


def step_lines(folder):
    path = folder / "events.jsonl"
    return path.read_text().count('"StepDone"') if path.is_file() else 0


def losses_of(folder):
    lines = read_events(folder / "events.jsonl")
    return [(x["stage"], x["step"], x["loss"]) for x in lines if x["event"] == "StepDone"]
