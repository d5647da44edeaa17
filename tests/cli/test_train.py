"""`napari-deepcrf train` and `evaluate`: a short run on files, its progress and its outcome."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from napari_deepcrf.cli import train as training_command
from napari_deepcrf.data.label_files import write_labels
from napari_deepcrf.training import config as configurations


@pytest.fixture
def short_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    """The recipe `compact`, with a narrow network and two steps a stage."""
    compact = configurations.named_config("compact")
    assert compact.unary is not None
    assert compact.joint is not None
    network = replace(compact.network, width=0.06, input_size=32)
    short = {"iterations": 2, "batch_size": 2, "copy_size": 32, "validate_every": 2, "decay": 0}
    augmentation = replace(compact.unary.augmentation, crop=25)
    unary = replace(compact.unary, **short, warmup=0, workers=0, augmentation=augmentation)
    recipe = replace(
        compact, network=network, unary=unary, joint=replace(compact.joint, **short, warmup=0)
    )
    monkeypatch.setitem(configurations._CONFIGS, "compact", recipe)


def write_photo(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (27, 33, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def write_truth(path: Path, labels: tuple[int, int]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    halves = np.full((27, 33), labels[0])
    halves[:, 16:] = labels[1]
    write_labels(path, halves)


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    root = tmp_path / "VOC2012"
    for number in range(3):
        write_photo(root / f"JPEGImages/{number}.jpg", number)
        write_truth(root / f"SegmentationClass/{number}.png", (0, 8))
    lists = root / "ImageSets/Segmentation"
    lists.mkdir(parents=True)
    (lists / "train_aug.txt").write_text("0\n1\n")
    (lists / "val.txt").write_text("2\n")
    return root


@pytest.mark.usefixtures("short_recipe")
def test_a_voc_folder_is_trained_on_and_the_model_evaluates(command, voc: Path, tmp_path: Path):
    run = tmp_path / "run"
    result = command("train", "--data", voc, "--out", run, "--json")
    assert (result.exit_code, result.err) == (0, "")
    events = [json.loads(line) for line in result.out.splitlines()]
    losses = [e["loss"] for e in events if e["event"] == "StepDone"]
    assert len(losses) == 4
    assert np.isfinite(losses).all()

    again = command("train", "--data", voc, "--out", run, "--json")
    resumed = [json.loads(line)["event"] for line in again.out.splitlines()]
    assert "StepDone" not in resumed

    result = command("evaluate", "--data", voc, "--model", run / "model.safetensors", "--json")
    figures = json.loads(result.out)
    assert figures["images"] == 1
    assert 0 <= figures["joint"]["mean"] <= 1


@pytest.mark.usefixtures("short_recipe")
def test_a_folder_of_pairs_is_trained_on(command, tmp_path: Path):
    for number in range(2):
        write_photo(tmp_path / f"data/images/{number}.png", number)
        write_truth(tmp_path / f"data/labels/{number}.png", (1, 2))
    result = command("train", "--data", tmp_path / "data", "--out", tmp_path / "run")
    assert (result.exit_code, result.err) == (0, "")
    assert result.out.splitlines()[-1] == str(tmp_path / "run/model.safetensors")
    assert (tmp_path / "run/model.safetensors").is_file()


@pytest.mark.usefixtures("short_recipe")
def test_lists_split_a_folder_and_options_change_the_recipe(command, tmp_path: Path):
    for number in range(3):
        write_photo(tmp_path / f"data/images/{number}.png", number)
        write_truth(tmp_path / f"data/labels/{number}.png", (1, 2))
    (tmp_path / "data/train.txt").write_text("0\n1\n")
    (tmp_path / "data/val.txt").write_text("2\n")
    out = tmp_path / "run"
    options = ("--patches", 20, "--micro-batch", 1)
    result = command("train", "--data", tmp_path / "data", "--out", out, *options)
    assert (result.exit_code, result.err) == (0, "")
    config = json.loads((out / "config.json").read_text())
    assert (config["patch_size"], config["unary"]["micro_batch"]) == (20, 1)
    assert config["network"]["input_size"] is None
    assert "joint step 2: mean IoU 0." in result.out
    assert f"report: {out / 'gallery-worst.png'}" in result.out
    model = ("--model", out / "joint-best.safetensors")
    result = command("evaluate", "--data", tmp_path / "data", *model, "--json")
    assert json.loads(result.out)["images"] == 1
    result = command("evaluate", "--data", tmp_path / "data", *model, "--split", "all")
    assert "on the 3 images of all" in result.out
    result = command("evaluate", "--data", tmp_path / "data", *model, "--split", "vla")
    assert result.exit_code == 2
    assert "vla.txt: expected names, one a line" in result.err


@pytest.mark.usefixtures("short_recipe")
def test_previews_go_into_a_picture(command, voc: Path, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(training_command, "PREVIEW_EVERY_S", 0.0)
    result = command("train", "--data", voc, "--out", tmp_path / "run")
    preview = tmp_path / "run/preview.png"
    assert result.out.count(f"2 in {preview}") == 4
    with Image.open(preview) as picture:
        assert (picture.mode, picture.size) == ("P", (33, 27))


@pytest.mark.usefixtures("short_recipe")
def test_previews_come_with_json_too(command, voc: Path, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(training_command, "PREVIEW_EVERY_S", 0.0)
    result = command("train", "--data", voc, "--out", tmp_path / "run", "--json")
    previews = [e for e in map(json.loads, result.out.splitlines()) if e["event"] == "Preview"]
    assert [e["shape"] for e in previews] == [[27, 33]] * 4
    with Image.open(tmp_path / "run/preview.png") as picture:
        assert picture.size == (33, 27)


@pytest.mark.usefixtures("short_recipe")
def test_every_unreadable_file_is_named_before_training(command, voc: Path, tmp_path: Path):
    for number in (0, 2):  # the first of either list
        (voc / f"JPEGImages/{number}.jpg").write_bytes(b"no photo")
    result = command("train", "--data", voc, "--out", tmp_path / "run")
    assert result.exit_code == 2
    assert len(result.err.strip().splitlines()) == 1
    assert "train: JPEGImages/0.jpg" in result.err
    assert "validation: JPEGImages/2.jpg" in result.err
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("short_recipe")
def test_strokes_take_the_place_of_labels(command, voc: Path, tmp_path: Path):
    for number in range(2):
        (voc / f"SegmentationClass/{number}.png").unlink()
        strokes = tmp_path / f"strokes/{number}_scribble.txt"
        strokes.parent.mkdir(exist_ok=True)
        strokes.write_text("0,3,3,3,20\n8,25,3,25,20\n")
    options = ("--data", voc, "--strokes", strokes.parent, "--out", tmp_path / "run")
    result = command("train", *options)
    assert (result.exit_code, result.err) == (0, "")
    assert "joint step 2: mean IoU 0." in result.out  # against the labels of val
    assert (tmp_path / "run/model.safetensors").is_file()
    strokes.unlink()
    result = command("train", *options)
    assert result.exit_code == 2
    assert "missing labels strokes/1_scribble.txt" in result.err


def test_strokes_go_with_voc_alone(command, tmp_path: Path):
    (tmp_path / "data/images").mkdir(parents=True)
    options = ("--data", tmp_path / "data", "--strokes", tmp_path, "--out", tmp_path / "run")
    result = command("train", *options)
    assert result.exit_code == 2
    assert result.err == (
        f"error: strokes: expected a VOC folder, got one of pairs, {tmp_path / 'data'}\n"
    )


def output_of(command: list[object]) -> str:
    """What a command prints; its workers end with it where it takes too long."""
    process = subprocess.Popen(
        [str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        output, errors = process.communicate(timeout=120)
    finally:
        if process.poll() is None:
            process.terminate()  # a kill would leave torchrun's workers
            process.wait()
    assert process.returncode == 0, errors
    return output


@pytest.mark.slow
@pytest.mark.skipif(not torch.distributed.is_available(), reason="PyTorch without distributed")
def test_torchrun_runs_the_command_as_one_process_does(voc: Path, tmp_path: Path):
    (voc / "ImageSets/Segmentation/train_aug.txt").write_text("0\n1\n2\n")
    program = Path(__file__).with_name("run_short.py")
    launchers = {
        "one": [sys.executable],
        "two": [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
            *("--nproc-per-node", "2", "--local-addr", "127.0.0.1"),
        ],
    }
    steps = {}
    for name, launcher in launchers.items():
        options = ["train", "--data", voc, "--out", tmp_path / name, "--device", "cpu"]
        output = output_of([*launcher, program, *options])
        assert output.splitlines()[-1] == str(tmp_path / name / "model.safetensors")
        lines = (tmp_path / name / "events.jsonl").read_text().splitlines()
        events = [event for event in map(json.loads, lines) if event["event"] == "StepDone"]
        steps[name] = [(event["stage"], event["step"]) for event in events]
        losses = [event["loss"] for event in events]
        assert (tmp_path / name / "model.safetensors").is_file()
        assert list((tmp_path / name).glob("iou*.md"))
        if name == "one":
            alone = losses
    assert steps["two"] == steps["one"]
    assert len(set(steps["two"])) == len(steps["two"]) == 4 + 3
    assert losses == pytest.approx(alone, rel=1e-5)


def test_a_diverging_run_ends_in_one_line(command, voc: Path, tmp_path: Path, monkeypatch):
    compact = configurations.named_config("compact")
    assert compact.joint is not None
    joint = replace(compact.joint, batch_size=1, validate_every=9)
    network = replace(compact.network, width=0.06, input_size=32, batch_norm=False)
    recipe = replace(compact, network=network, unary=None, joint=joint)
    monkeypatch.setitem(configurations._CONFIGS, "compact", recipe)
    monkeypatch.setattr(
        "napari_deepcrf.training.joint_stage.marginal_loss",
        lambda marginals, _: marginals.sum() * float("nan"),
    )
    result = command("train", "--data", voc, "--out", tmp_path / "run")
    assert result.exit_code == 2
    assert "loss nan with gradient norm" in result.err
    assert "at step 1 of the joint stage, batch " in result.err
    assert len(result.err.strip().splitlines()) == 1
    assert (tmp_path / "run/joint-last.safetensors").is_file()


def test_scribbles_start_from_the_packaged_model(command, tmp_path: Path, monkeypatch):
    short = configurations.named_config("scribbles")
    assert short.scribbles is not None
    scribbles = replace(short.scribbles, rounds=0, iterations=1)
    monkeypatch.setitem(
        configurations._CONFIGS, "scribbles", replace(short, scribbles=scribbles, reported=1)
    )
    write_photo(tmp_path / "data/images/0.png", 0)
    write_truth(tmp_path / "data/labels/0.png", (1, 2))
    out = tmp_path / "run"
    result = command("train", "--data", tmp_path / "data", "--out", out, "--config", "scribbles")
    assert (result.exit_code, result.err) == (0, "")
    assert json.loads((out / "config.json").read_text())["init"] == "voc-compact"


def test_only_published_datasets_can_be_downloaded(command, tmp_path: Path):
    result = command("data", "coco", "--to", tmp_path)
    assert result.exit_code == 2
    assert result.err == "error: names: expected voc2012 or sbd, got 'coco'\n"


@pytest.mark.usefixtures("short_recipe")
def test_every_missing_file_is_named_before_training(command, voc: Path, tmp_path: Path):
    for number in range(2):
        (voc / f"SegmentationClass/{number}.png").unlink()
    (voc / "JPEGImages/2.jpg").write_bytes(b"no photo")  # a validation image
    result = command("train", "--data", voc, "--out", tmp_path / "run")
    assert result.exit_code == 2
    assert len(result.err.strip().splitlines()) == 1
    assert "SegmentationClass/0.png" in result.err
    assert "SegmentationClass/1.png" in result.err
    assert "JPEGImages/2.jpg: expected an image file" in result.err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.zeros((28, 33), int), "SegmentationClass/2.png: image is 33×27 but labels are 33×28"),
        (np.full((27, 33), 77), "SegmentationClass/2.png: label 77 is out of range"),
    ],
)
def test_a_sample_that_cannot_be_measured_is_named(command, voc, tiny_model, labels, message):
    write_labels(voc / "SegmentationClass/2.png", labels)
    result = command("evaluate", "--data", voc, "--model", tiny_model)
    assert result.exit_code == 2
    assert message in result.err
    assert len(result.err.strip().splitlines()) == 1
