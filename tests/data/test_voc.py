"""VOC folders: palette and raw PNG, void, lists, and all that is missing at once."""

import shutil

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from napari_deepcrf.data.label_files import voc_palette
from napari_deepcrf.data.samples import VOID, DatasetError
from napari_deepcrf.data.voc import VOC_CLASSES, VOCDataset


@pytest.fixture
def root(tmp_path):
    """Three images; the third has only SBD's raw labels."""
    devkit = tmp_path / "VOC2012"
    for folder in (
        "JPEGImages",
        "SegmentationClass",
        "SegmentationClassAug",
        "ImageSets/Segmentation",
    ):
        (devkit / folder).mkdir(parents=True)
    for name in ("a", "b", "c"):
        Image.fromarray(np.full((21, 33, 3), 90, np.uint8)).save(devkit / f"JPEGImages/{name}.jpg")
        labels = np.zeros((21, 33), np.uint8)
        labels[3:9, 4:20] = 15
        labels[0] = 0 if name == "c" else VOID
        png = Image.fromarray(labels)
        if name != "c":
            png = png.convert("P")
            png.putpalette(voc_palette().tobytes())
        folder = "SegmentationClassAug" if name == "c" else "SegmentationClass"
        png.save(devkit / folder / f"{name}.png")
    (devkit / "ImageSets/Segmentation/train.txt").write_text("a\nb\n")
    (devkit / "ImageSets/Segmentation/train_aug.txt").write_text("a\nb\nc\n")
    return devkit


def test_palette_and_raw_labels_read_alike(root):
    dataset = VOCDataset(root, "train_aug")
    assert len(dataset) == 3
    assert dataset.class_names == VOC_CLASSES
    official, raw = dataset[0], dataset[2]
    assert official.image.shape == (21, 33, 3)
    assert np.unique(official.labels).tolist() == [0, 15, VOID]
    assert np.unique(raw.labels).tolist() == [0, 15]
    assert (official.labels[1:] == raw.labels[1:]).all()


def test_the_devkit_is_found_from_its_parents(root):
    outer = root.parent.parent / "outer"
    (outer / "VOCdevkit").mkdir(parents=True)
    shutil.move(root, outer / "VOCdevkit" / "VOC2012")
    for place in (outer, outer / "VOCdevkit", outer / "VOCdevkit" / "VOC2012"):
        assert len(VOCDataset(place, "train")) == 2


def test_everything_missing_is_named_at_once(root):
    (root / "JPEGImages/a.jpg").unlink()
    (root / "SegmentationClass/b.png").unlink()
    (root / "SegmentationClassAug/c.png").unlink()
    with pytest.raises(DatasetError) as caught:
        VOCDataset(root, "train_aug")
    message = str(caught.value)
    assert "\n" not in message
    assert "3 problems" in message
    for expected in ("JPEGImages/a.jpg", "SegmentationClass/b.png", "SegmentationClass/c.png"):
        assert expected in message


def test_no_missing_label_is_left_out_however_many(root):
    names = [f"lost{number:03d}" for number in range(40)]
    (root / "ImageSets/Segmentation/val.txt").write_text("\n".join(names))
    with pytest.raises(DatasetError, match=r"80 problems: .*; and 50 more$") as caught:
        VOCDataset(root, "val")
    for name in names:
        assert f"missing labels SegmentationClass/{name}.png" in caught.value.problems


def test_what_else_is_wrong_is_listed_with_missing_files(root):
    (root / "JPEGImages/a.jpg").unlink()
    (root / "JPEGImages/b.jpg").write_bytes(b"not a photo")
    Image.fromarray(np.full((21, 34), 77, np.uint8)).save(root / "SegmentationClassAug/c.png")
    with pytest.raises(DatasetError) as caught:
        VOCDataset(root, "train_aug")
    missing, unreadable, unequal = caught.value.problems
    assert missing == "missing image JPEGImages/a.jpg"
    assert unreadable.startswith("JPEGImages/b.jpg: expected an image file; reading it failed: ")
    assert unequal == "SegmentationClassAug/c.png: image is 33×21 but labels are 34×21"


def test_sbd_beside_the_devkit_gives_labels_and_train_aug(root):
    sbd = root.parent / "benchmark_RELEASE/dataset"
    (sbd / "cls").mkdir(parents=True)
    (root / "ImageSets/Segmentation/train_aug.txt").unlink()
    (root / "ImageSets/Segmentation/val.txt").write_text("c\n")
    labels = np.zeros((21, 33), np.uint8)
    labels[5:, 4:] = 20
    for name in ("d", "e"):
        Image.fromarray(np.zeros((21, 33, 3), np.uint8)).save(root / f"JPEGImages/{name}.jpg")
        savemat(sbd / f"cls/{name}.mat", {"GTcls": {"Segmentation": labels}})
    (sbd / "train.txt").write_text("e\na\n")
    (sbd / "val.txt").write_text("d\nc\n")
    for place in (root, root.parent):
        dataset = VOCDataset(place, "train_aug")
        assert dataset.names == ("a", "b", "d", "e")
        assert (dataset[2].labels == labels).all()
        assert VOID in dataset[0].labels


def test_train_aug_without_sbd_says_what_it_needs(root):
    (root / "ImageSets/Segmentation/train_aug.txt").unlink()
    with pytest.raises(DatasetError, match="found train, and no benchmark_RELEASE of SBD beside"):
        VOCDataset(root, "train_aug")


def test_unknown_splits_and_folders_are_named(root, tmp_path):
    with pytest.raises(ValueError, match="no split 'val', found train, train_aug"):
        VOCDataset(root, "val")
    with pytest.raises(ValueError, match="expected ImageSets/Segmentation here"):
        VOCDataset(tmp_path / "nothing", "train")


def test_a_broken_image_is_named(root):
    (root / "JPEGImages/b.jpg").write_bytes(b"not a photo")
    with pytest.raises(DatasetError, match=r"JPEGImages/b\.jpg: expected an image file"):
        VOCDataset(root, "train")[1]
