"""Reading images from arrays of every kind."""

import dask.array as da
import numpy as np
import pytest
import zarr

from napari_deepcrf.data.images import as_rgb
from napari_deepcrf.inference.lazy_image import LazyImage, open_array


@pytest.fixture
def colours() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (19, 23, 3), dtype=np.uint8)


def _read(image) -> np.ndarray:
    return LazyImage.of(image).read(slice(3, 17), slice(5, 21))


def test_arrays_of_every_kind_give_the_same_pixels(colours, tmp_path):
    expected = as_rgb(colours)[3:17, 5:21]
    stored = zarr.create_array(tmp_path / "a.zarr", data=colours, chunks=(8, 8, 3))
    np.save(tmp_path / "a.npy", colours)
    kinds = [
        colours,
        da.from_array(colours, chunks=7),
        stored,
        tmp_path / "a.zarr",
        str(tmp_path / "a.npy"),
        [colours, colours[::2, ::2]],
        np.dstack([colours, colours[..., :1]]),
    ]
    for image in kinds:
        np.testing.assert_array_equal(_read(image), expected)


def test_neighbouring_windows_read_a_chunk_once(colours, monkeypatch):
    read = []

    def chunk(block, block_info=None):
        read.append(tuple(block_info[0]["chunk-location"][:2]))
        return block

    image = LazyImage.of(
        da.from_array(colours, chunks=(8, 7, 1)).map_blocks(chunk, meta=colours[:0])
    )
    for y, x in ((0, 0), (3, 2), (5, 9), (11, 15)):
        window = image.read(slice(y, y + 8), slice(x, x + 8))
        np.testing.assert_array_equal(window, colours[y : y + 8, x : x + 8])
    assert len(read) == 3 * len(set(read))  # a chunk for each of the channels
    # What would not fit is read anew.
    monkeypatch.setattr("napari_deepcrf.inference.block_cache.ROOM", 300)
    np.testing.assert_array_equal(image.read(slice(0, 19), slice(0, 23)), colours)
    assert sum(block.nbytes for block in image._cache._blocks.values()) <= 300


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_ome_zarr_names_its_channel_axis(colours, tmp_path, version):
    axes = [{"name": name} for name in "cyx"]
    multiscales = [{"axes": axes, "datasets": [{"path": "full"}, {"path": "half"}]}]
    attributes = {"multiscales": multiscales}
    if version == "0.5":
        attributes = {"ome": {"version": "0.5", **attributes}}
    group = zarr.create_group(
        tmp_path / "i.zarr", attributes=attributes, zarr_format=2 if version == "0.4" else 3
    )
    group.create_array("full", data=np.moveaxis(colours, 2, 0).copy())
    group.create_array("half", data=np.moveaxis(colours[::2, ::2], 2, 0).copy())
    np.testing.assert_array_equal(_read(tmp_path / "i.zarr"), as_rgb(colours)[3:17, 5:21])


@pytest.mark.parametrize("kind", [np.uint16, np.float32, bool, np.int32])
def test_grey_levels_are_those_of_a_single_image(colours, kind):
    values = (colours[..., 0].astype(float) * 100).astype(kind)
    np.testing.assert_allclose(_read(values), as_rgb(values)[3:17, 5:21], rtol=1e-6)
    unit = colours[..., 0] / np.float32(255)
    np.testing.assert_allclose(_read(unit), as_rgb(unit)[3:17, 5:21], rtol=1e-6)


def test_only_what_is_asked_for_is_read():
    read = []

    def chunk(block_info=None):
        read.append(block_info[None]["chunk-location"])
        return np.zeros((10, 10, 3), np.uint8)

    chunks = ((10,) * 40, (10,) * 40, (3,))
    image = da.map_blocks(chunk, chunks=chunks, dtype=np.uint8, meta=np.zeros((0,) * 3, np.uint8))
    assert LazyImage.of(image).read(slice(25, 35), slice(100, 120)).shape == (10, 20, 3)
    assert sorted(read) == [(2, 10, 0), (2, 11, 0), (3, 10, 0), (3, 11, 0)]


def test_the_mean_is_that_of_the_grey_levels(colours):
    np.testing.assert_allclose(LazyImage.of(colours).mean(), as_rgb(colours).mean((0, 1)))


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((20, 20, 3, 3)), r"expected \(H, W\) or \(H, W, C\)"),
        (np.zeros((20, 7)), "at least 8×8 pixels, got 20×7"),
        (np.zeros((20, 20, 2)), "1, 3 or 4 channels, got 2"),
        (np.full((20, 20), np.nan), "expected finite values"),
        (np.zeros(20), "expected two or more axes"),
        ("/nowhere", "expected a .npy file or a zarr folder"),
    ],
)
def test_bad_images_are_refused_in_one_line(image, message):
    with pytest.raises(ValueError, match=message):
        LazyImage.of(image)
    with pytest.raises(TypeError, match="expected numbers"):
        open_array(np.full((9, 9), "x"))


def test_a_folder_without_an_image_is_refused(tmp_path):
    zarr.create_group(tmp_path / "empty.zarr")
    with pytest.raises(ValueError, match="expected a zarr array or an OME-Zarr image in"):
        LazyImage.of(tmp_path / "empty.zarr")
    with pytest.raises(ValueError, match="expected a zarr array or an OME-Zarr image in"):
        LazyImage.of(tmp_path)


def test_broken_files_are_told_in_one_line(colours, tmp_path):
    (tmp_path / "empty.npy").write_bytes(b"")
    with pytest.raises(ValueError, match=r"image: expected one array of numbers in .*empty\.npy"):
        LazyImage.of(tmp_path / "empty.npy")
    zarr.create_array(tmp_path / "a.zarr", data=colours, chunks=(8, 8, 3))
    image = LazyImage.of(da.from_zarr(tmp_path / "a.zarr"))
    (tmp_path / "a.zarr" / "c" / "1" / "1" / "0").write_bytes(b"broken")
    assert image.read(slice(0, 8), slice(0, 23)).shape == (8, 23, 3)
    with pytest.raises(ValueError, match="image: reading rows 5–12 of columns 0–20 failed: "):
        image.read(slice(5, 12), slice(0, 20))
