"""ScribbleSup's stroke files, and VOC with them."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from napari_deepcrf.data.problems import check_dataset
from napari_deepcrf.data.samples import VOID, DatasetError
from napari_deepcrf.data.scribbles import StrokesDataset, read_strokes


def test_strokes_become_labels(tmp_path):
    path = tmp_path / "strokes.txt"
    path.write_text("0,2,5,20,5\n\n12,10,15,10,25,14,25\n3,40,40\n")
    labels = read_strokes(path, (31, 25), num_classes=21, width=3)
    assert labels.shape == (31, 25)
    assert labels.dtype == np.uint8
    assert set(np.unique(labels)) == {0, 12, VOID}  # the last stroke lies outside
    assert (labels[4:7, 5:18] == 0).all()
    assert labels[20, 10] == 12
    assert labels[25, 12] == 12
    assert (labels == VOID).mean() > 0.8


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("21,1,1,2,2", r"line 2: class 21 is out of range, expected 0 to 20"),
        ("4,1,1,2", "line 2: expected pairs of coordinates, got 3 numbers"),
        ("4,one,1", "line 2: expected numbers"),
    ],
)
def test_bad_lines_are_named(tmp_path, line, message):
    path = tmp_path / "strokes.txt"
    path.write_text(f"0,1,1,5,5\n{line}\n")
    with pytest.raises(ValueError, match=message):
        read_strokes(path, (20, 20), num_classes=21)


@pytest.fixture
def devkit(tmp_path: Path) -> Path:
    """Three photos without labels, and the strokes of two."""
    for folder in ("JPEGImages", "ImageSets/Segmentation", "strokes"):
        (tmp_path / "VOC2012" / folder).mkdir(parents=True)
    root = tmp_path / "VOC2012"
    for name in "abc":
        Image.new("RGB", (31, 23)).save(root / f"JPEGImages/{name}.jpg")
    (root / "ImageSets/Segmentation/train.txt").write_text("a\nb\n")
    (root / "ImageSets/Segmentation/all.txt").write_text("a\nb\nc\n")
    (root / "strokes/a_scribble.txt").write_text("0,2,5,20,5\n8,10,15,25,15\n")
    (root / "strokes/b.txt").write_text("12,4,4\n")
    return root


def test_vocs_images_have_strokes_for_labels(devkit):
    dataset = StrokesDataset(devkit, "train", devkit / "strokes")
    assert dataset.names == ("a", "b")
    first, second = dataset
    assert first.image.shape == (23, 31, 3)
    expected = read_strokes(devkit / "strokes/a_scribble.txt", (23, 31), num_classes=21)
    np.testing.assert_array_equal(first.labels, expected)
    assert set(np.unique(first.labels)) == {0, 8, VOID}
    assert set(np.unique(second.labels)) == {12, VOID}
    assert second.labels[4, 4] == 12
    check_dataset(dataset)
    assert devkit / "strokes/b.txt" in dataset.files


def test_all_that_is_wrong_with_strokes_is_named(devkit):
    (devkit / "strokes/b.txt").write_text("21,4,4\n")
    with pytest.raises(DatasetError) as caught:
        StrokesDataset(devkit, "all", devkit / "strokes")
    assert caught.value.problems == (
        "strokes/b.txt: line 1: class 21 is out of range, expected 0 to 20",
        "missing labels strokes/c_scribble.txt",
    )
    with pytest.raises(DatasetError, match="nowhere: 1 problem: expected a folder of stroke files"):
        StrokesDataset(devkit, "train", "nowhere")
