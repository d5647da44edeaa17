"""Image files and arrays of numbers, read as they are or refused."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from napari_deepcrf.data.image_files import read_image
from napari_deepcrf.data.label_files import voc_palette, write_labels
from napari_deepcrf.data.npy import read_array, write_array


@pytest.mark.parametrize("shape", [(9, 13), (9, 13, 3), (9, 13, 4)])
def test_png_comes_back_as_it_is(tmp_path: Path, shape: tuple[int, ...]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    np.testing.assert_array_equal(read_image(tmp_path / "image.png"), pixels)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_are_kept(tmp_path: Path, suffix: str) -> None:
    pixels = np.random.default_rng(1).integers(0, 65536, (9, 13), dtype=np.uint16)
    path = tmp_path / f"image.{suffix}"
    tifffile.imwrite(path, pixels) if suffix == "tif" else Image.fromarray(pixels).save(path)
    np.testing.assert_array_equal(read_image(path), pixels)


def test_tiff_channels_come_last_however_they_are_stored(tmp_path: Path) -> None:
    pixels = np.random.default_rng(5).integers(0, 256, (9, 13, 3), dtype=np.uint8)
    for name, stored in (("separate", np.moveaxis(pixels, 2, 0)), ("contig", pixels)):
        path = tmp_path / f"{name}.tif"
        tifffile.imwrite(path, stored, photometric="rgb", planarconfig=name)
        np.testing.assert_array_equal(read_image(path), pixels)


def test_palette_image_is_read_in_its_colours(tmp_path: Path) -> None:
    write_labels(tmp_path / "labels.png", np.full((8, 8), 15))
    assert tuple(read_image(tmp_path / "labels.png")[0, 0]) == tuple(voc_palette()[15])


@pytest.mark.parametrize("content", [b"", b"not an image", b"\x89PNG\r\n\x1a\n" + bytes(40)])
@pytest.mark.parametrize("name", ["image.png", "image.tif"])
def test_what_is_no_image_is_named_in_one_line(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"{name}: expected an image file") as caught:
        read_image(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_truncated_photo_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    Image.fromarray(np.random.default_rng(2).integers(0, 256, (64, 64, 3), np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ValueError, match=r"photo\.jpg"):
        read_image(path)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nothing\.png: no such image file"):
        read_image(tmp_path / "nothing.png")


def test_arrays_come_back(tmp_path: Path) -> None:
    array = np.random.default_rng(4).random((3, 5, 7)).astype(np.float32)
    write_array(tmp_path / "array.npy", array)
    np.testing.assert_array_equal(read_array(tmp_path / "array.npy"), array)


def test_pickles_and_archives_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "pickle.npy", np.array([object()]), allow_pickle=True)
    np.savez(tmp_path / "archive.npz", a=np.zeros(3))
    (tmp_path / "text.npy").write_text("no array")
    for name in ("pickle.npy", "archive.npz", "text.npy"):
        with pytest.raises(ValueError, match=rf"{name}: expected a \.npy file"):
            read_array(tmp_path / name)
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_array(tmp_path / "nothing.npy")
