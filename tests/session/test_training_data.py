"""What is wrong with painted images is told whole, by layer, before anything is trained."""

import threading

import numpy as np
import pytest
from PIL import Image

from napari_deepcrf.data.samples import DatasetError
from napari_deepcrf.session.images import ImageSource
from napari_deepcrf.session.training import (
    LabelledImage,
    TrainingPlan,
    _datasets,
    train,
)


def painted(name: str, pixels: np.ndarray, highest: int) -> LabelledImage:
    annotation = np.ones((19, 23), np.int32)
    annotation[0, 0] = highest
    source = ImageSource(key=name, name=name, shape=(19, 23), read=lambda: pixels)
    return LabelledImage(source, annotation)


def test_every_layer_that_cannot_be_used_is_named():
    rgb = np.zeros((19, 23, 3), np.uint8)
    pairs = [
        painted("nowhere", np.full((19, 23), np.nan), 2),
        painted("cells", rgb, 2),
        painted("instances", rgb, 258),  # would be class 2 in 8 bits
    ]
    plan = TrainingPlan(read_pairs=lambda: pairs, class_names=("background", "cell"))
    with pytest.raises(DatasetError) as caught:
        list(train(plan, threading.Event()))
    assert caught.value.problems == (
        "nowhere: expected finite values, got NaN or infinity",
        "instances: label 258 is out of range, expected 0 (unlabelled) to 2",
    )


def test_lists_split_a_folder_as_they_do_on_the_command_line(tmp_path):
    for kind, value in (("images", 90), ("labels", 1)):
        (tmp_path / kind).mkdir()
        for name in "abcdef":
            pixels = np.full((19, 23), value, np.uint8)
            pixels[4:] = 2
            Image.fromarray(pixels).save(tmp_path / kind / f"{name}.png")
    (tmp_path / "train.txt").write_text("a\nc\nd\n")
    (tmp_path / "val.txt").write_text("b\n")
    training, validation, measured_on = _datasets(TrainingPlan(folder=tmp_path))
    names = [[part[n].name for n in range(len(part))] for part in (training, validation)]
    assert names == [["a", "c", "d"], ["b"]]
    assert measured_on == "that of the images in val.txt"
