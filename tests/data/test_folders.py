"""Image/label folders of one's own, and SBD's MATLAB files."""

import numpy as np
import pytest
import tifffile
from PIL import Image
from scipy.io import savemat

from napari_deepcrf.data.folder import FolderDataset
from napari_deepcrf.data.matlab import read_mat_labels
from napari_deepcrf.data.problems import check_dataset
from napari_deepcrf.data.samples import VOID, DatasetError
from napari_deepcrf.data.sbd import SBDDataset


@pytest.fixture
def pairs(tmp_path):
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    labels = np.zeros((11, 14), np.uint8)
    labels[2:5] = 1
    labels[6:9] = 3
    for name, suffix in (("one", "png"), ("two", "jpg")):
        Image.fromarray(np.full((11, 14, 3), 80, np.uint8)).save(
            tmp_path / f"images/{name}.{suffix}"
        )
        Image.fromarray(labels).save(tmp_path / f"labels/{name}.png")
    return tmp_path


def test_a_folder_of_pairs(pairs):
    dataset = FolderDataset(pairs)
    assert dataset.names == ("one", "two")
    assert dataset.class_names == ("class 1", "class 2", "class 3")
    assert dataset[0].image.shape == (11, 14, 3)
    assert np.unique(dataset[1].labels).tolist() == [0, 2, VOID]
    (pairs / "classes.txt").write_text("sky\nsea\nsand\n")
    assert FolderDataset(pairs).class_names == ("sky", "sea", "sand")


def test_labels_saved_by_napari_are_read(pairs):
    (pairs / "labels/one.png").unlink()
    labels = np.zeros((11, 14), np.int32)
    labels[:4] = 2
    tifffile.imwrite(pairs / "labels/one.tif", labels)
    dataset = FolderDataset(pairs)
    assert (dataset[0].labels[:4] == 1).all()
    assert (dataset[0].labels[4:] == VOID).all()


def test_lists_split_a_folder(pairs):
    (pairs / "train.txt").write_text("one\n")
    (pairs / "val.txt").write_text("two\n")
    train, val = FolderDataset(pairs, "train"), FolderDataset(pairs, "val")
    assert (train.names, val.names) == (("one",), ("two",))
    assert train.class_names == val.class_names
    (pairs / "classes.txt").write_text("sky\nsea\nsand\nsnow\n")
    check_dataset(FolderDataset(pairs, "val"))
    with pytest.raises(DatasetError, match=r"'sea' \(label 2\); no pixel is labelled 'snow'"):
        check_dataset(FolderDataset(pairs, "train"))
    with pytest.raises(DatasetError, match=r"test\.txt: expected names, one a line"):
        FolderDataset(pairs, "test")


def test_everything_wrong_with_a_folder_is_listed_at_once(pairs):
    def save(name, labels, shape=(11, 14, 3)):
        Image.fromarray(np.zeros(shape, np.uint8)).save(pairs / f"images/{name}.png")
        Image.fromarray(labels.astype(np.uint8)).save(pairs / f"labels/{name}.png")

    (pairs / "classes.txt").write_text("sky\nsea\nsand\nsnow\n")
    (pairs / "images/one.png").write_bytes(b"nothing")
    (pairs / "labels/one.png").write_bytes(b"nothing either")
    (pairs / "images/two.jpg").unlink()
    save("three", np.ones((11, 14)), shape=(12, 14, 3))
    save("four", np.full((11, 14), 9))
    save("five", np.zeros((11, 14)))
    save("six", np.ones((11, 14)))
    (pairs / "labels/six.png").unlink()
    save("seven", np.ones((11, 14)))
    with pytest.raises(DatasetError) as caught:
        FolderDataset(pairs)
    assert "\n" not in str(caught.value)
    expected = [
        "labels/five.png: no labelled pixel",
        "labels/four.png: label 9 is out of range, expected 0 (unlabelled) to 4",
        "images/one.png: expected an image file",
        "labels/one.png: expected an image file; reading it failed: no known format",
        "missing labels labels/six.png",
        "labels/three.png: image is 14×12 but labels are 14×11",
        "missing image images/two.*",
        "no pixel is labelled 'sea' (label 2)",
        "no pixel is labelled 'sand' (label 3)",
        "no pixel is labelled 'snow' (label 4)",
    ]
    assert len(caught.value.problems) == len(expected)
    for problem, start in zip(caught.value.problems, expected, strict=True):
        assert problem.startswith(start)


def test_every_unreadable_label_is_named_where_nothing_is_missing(pairs):
    for name in ("one", "two"):
        (pairs / f"labels/{name}.png").write_bytes(b"nothing")
    with pytest.raises(DatasetError) as caught:
        check_dataset(FolderDataset(pairs))
    for name in ("one", "two"):
        assert any(
            p.startswith(f"labels/{name}.png: expected an image file")
            for p in caught.value.problems
        )


def test_two_files_of_one_name_are_named(pairs):
    (pairs / "images/one.tif").touch()
    (pairs / "labels/two.tif").touch()
    with pytest.raises(DatasetError) as caught:
        FolderDataset(pairs)
    assert caught.value.problems == (
        "images: expected one file one.*, got one.png and one.tif",
        "labels: expected one file two.*, got two.png and two.tif",
    )


def test_missing_folders_are_named(tmp_path):
    with pytest.raises(ValueError, match="no folder 'images'; no folder 'labels'"):
        FolderDataset(tmp_path / "images")


@pytest.fixture
def sbd(tmp_path):
    root = tmp_path / "benchmark_RELEASE/dataset"
    for folder in ("img", "cls"):
        (root / folder).mkdir(parents=True)
    labels = np.zeros((9, 12), np.uint8)
    labels[3:, 4:] = 20
    Image.fromarray(np.zeros((9, 12, 3), np.uint8)).save(root / "img/2008_000002.jpg")
    savemat(root / "cls/2008_000002.mat", {"GTcls": {"Segmentation": labels, "Boundaries": 0}})
    (root / "train.txt").write_text("2008_000002\n")
    return tmp_path


def test_sbd_reads_matlab_labels(sbd):
    dataset = SBDDataset(sbd, "train")
    assert len(dataset) == 1
    assert dataset[0].image.shape == (9, 12, 3)
    assert (dataset[0].labels[3:, 4:] == 20).all()
    assert len(dataset.class_names) == 21


def test_what_sbd_lacks_is_named(sbd, tmp_path):
    (sbd / "benchmark_RELEASE/dataset/train.txt").write_text("2008_000002\n2008_000003\n")
    with pytest.raises(
        DatasetError, match=r"missing image img/2008_000003\.jpg; missing labels cls/2008_000003"
    ):
        SBDDataset(sbd, "train")
    with pytest.raises(ValueError, match="no split 'val'"):
        SBDDataset(sbd, "val")
    with pytest.raises(ValueError, match="expected SBD's folders"):
        SBDDataset(tmp_path / "nowhere", "train")
    bad = tmp_path / "bad.mat"
    bad.write_bytes(b"MATLAB 5.0 perhaps")
    with pytest.raises(ValueError, match=r"bad\.mat: expected SBD's GTcls"):
        read_mat_labels(bad)
