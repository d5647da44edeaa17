"""Label PNGs: their indices, their colours, and files that appear whole."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from napari_deepcrf.data.label_files import read_labels, voc_palette, write_labels


def test_palette_is_the_devkits():
    palette = voc_palette()
    assert palette[[0, 1, 2, 15, 20, 255]].tolist() == [
        [0, 0, 0],
        [128, 0, 0],
        [0, 128, 0],
        [192, 128, 128],
        [0, 64, 128],
        [224, 224, 192],
    ]


def test_colour_labels_are_refused(tmp_path):
    path = tmp_path / "labels.png"
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(path)
    with pytest.raises(ValueError, match=r"expected a palette or 8-bit grey PNG .* got RGB"):
        read_labels(path)


def test_labels_keep_their_indices_and_voc_colours(tmp_path: Path) -> None:
    labels = np.random.default_rng(3).integers(0, 256, (11, 7))
    write_labels(tmp_path / "labels.png", labels)
    np.testing.assert_array_equal(read_labels(tmp_path / "labels.png"), labels)
    with Image.open(tmp_path / "labels.png") as image:
        np.testing.assert_array_equal(np.asarray(image.convert("RGB")), voc_palette()[labels])


def test_labels_that_do_not_fit_leave_the_old_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "labels.png"
    write_labels(path, np.ones((8, 8), dtype=int))
    with pytest.raises(ValueError, match="from 0 to 255, got 0 to 300"):
        write_labels(path, np.array([[0, 300]]))
    np.testing.assert_array_equal(read_labels(path), np.ones((8, 8)))


def test_a_failed_write_leaves_the_old_file_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "labels.png"
    write_labels(path, np.ones((8, 8), dtype=int))

    def full_disk(self: Image.Image, stream: object, **_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full_disk)
    with pytest.raises(OSError, match="No space left"):
        write_labels(path, np.zeros((8, 8), dtype=int))
    monkeypatch.undo()
    np.testing.assert_array_equal(read_labels(path), np.ones((8, 8)))
    assert [p.name for p in tmp_path.iterdir()] == ["labels.png"]
