"""Image/label folders of one's own, and SBD's MATLAB files."""

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from napari_deepcrf.data.folder import FolderDataset
from napari_deepcrf.data.samples import VOID, DatasetError
from napari_deepcrf.data.sbd import SBDDataset, read_mat_labels


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


def test_pairs_that_lack_a_half_are_all_named(pairs):
    (pairs / "labels/one.png").unlink()
    (pairs / "images/two.jpg").unlink()
    with pytest.raises(DatasetError, match=r"one\.png: no labels; two\.png: no image"):
        FolderDataset(pairs)


def test_broken_files_and_missing_folders_are_named(pairs, tmp_path):
    (pairs / "images/one.png").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"one\.png"):
        FolderDataset(pairs)[0]
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
        DatasetError, match=r"missing img/2008_000003\.jpg; missing cls/2008_000003"
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
