"""Labels in every format, read back by the libraries that people will use."""

import ast
import io
import json
from pathlib import Path

import numpy as np
import pytest
import zarr
from PIL import Image
from pycocotools.coco import COCO

import napari_deepcrf
from napari_deepcrf.batch import formats
from napari_deepcrf.batch.formats import FORMATS, class_areas, find_format
from napari_deepcrf.cli.segment import ResultFormat
from napari_deepcrf.data.label_files import voc_palette
from napari_deepcrf.inference.label_pyramid import LabelPyramid
from napari_deepcrf.inference.tiling import cut

ROOT = Path(napari_deepcrf.__file__).parent
NAMES = ("background", "cat", "dog", "unseen")


@pytest.fixture(params=[(23, 31), (1, 9), (301, 257)], ids=str)
def labels(request: pytest.FixtureRequest):
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 3, [-(-side // 5) for side in request.param], dtype=np.uint8)
    return coarse.repeat(5, 0).repeat(5, 1)[: request.param[0], : request.param[1]]


def test_png_has_vocs_palette(labels):
    (content,) = FORMATS["png"].encode(labels, NAMES, "photo.jpg").values()
    with Image.open(io.BytesIO(content)) as image:
        assert image.mode == "P"
        np.testing.assert_array_equal(np.asarray(image), labels)
        np.testing.assert_array_equal(
            np.reshape(image.getpalette(), (-1, 3))[: len(NAMES)], voc_palette()[: len(NAMES)]
        )


def test_numpy(labels):
    (content,) = FORMATS["numpy"].encode(labels, NAMES, "photo.jpg").values()
    read = np.load(io.BytesIO(content), allow_pickle=False)
    assert read.dtype == np.uint8
    np.testing.assert_array_equal(read, labels)


def test_ome_zarr_has_resolutions_names_and_colours(labels, tmp_path: Path):
    for name, content in FORMATS["ome-zarr"].encode(labels, NAMES, "photo.jpg").items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    group = zarr.open_group(tmp_path, mode="r")
    ome = group.attrs["ome"]
    (image,) = ome["multiscales"]
    assert [axis["name"] for axis in image["axes"]] == ["y", "x"]
    for number, dataset in enumerate(image["datasets"]):
        step = 2**number
        assert dataset["coordinateTransformations"] == [{"type": "scale", "scale": [step, step]}]
        np.testing.assert_array_equal(group[dataset["path"]][:], labels[::step, ::step])
    assert len(image["datasets"]) == (3 if min(labels.shape) > 200 else 1)
    assert [p["class"] for p in ome["image-label"]["properties"]] == list(NAMES)
    colours = [c["rgba"][:3] for c in ome["image-label"]["colors"]]
    np.testing.assert_array_equal(colours, voc_palette()[: len(NAMES)])


def test_ome_zarr_is_what_is_written_tile_by_tile(labels, tmp_path: Path):
    pyramid = LabelPyramid.create(tmp_path / "tiled", labels.shape, tile=1024, class_names=NAMES)
    for tile in cut(labels.shape, 1024):
        pyramid.write(tile, labels[tile.region])
    files = (path for path in (tmp_path / "tiled").rglob("*") if path.is_file())
    written = {path.relative_to(tmp_path / "tiled").as_posix(): path.read_bytes() for path in files}
    assert written == FORMATS["ome-zarr"].encode(labels, NAMES, "photo.jpg")


def test_every_list_of_formats_has_all_of_them():
    """The command line and the dock have lists of their own, which load nothing."""
    assert [kind.value for kind in ResultFormat] == list(FORMATS)
    panel = ast.parse((ROOT / "plugin/panels/batch_panel.py").read_text(encoding="utf-8"))
    listed = [
        ast.literal_eval(node.value)
        for node in panel.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "FORMATS"
    ]
    assert listed == [tuple(FORMATS)]


def test_coco_is_a_data_set_that_pycocotools_reads(labels, tmp_path: Path):
    (content,) = FORMATS["coco-rle"].encode(labels, NAMES, "photo.jpg").values()
    path = tmp_path / "photo.coco.json"
    path.write_bytes(content)
    coco = COCO(str(path))
    assert [category["name"] for category in coco.loadCats(coco.getCatIds())] == list(NAMES)
    (image,) = coco.loadImgs(coco.getImgIds())
    assert (image["file_name"], image["height"], image["width"]) == ("photo.jpg", *labels.shape)
    rebuilt = np.full(labels.shape, 255, np.uint8)
    for annotation in coco.loadAnns(coco.getAnnIds()):
        mask = coco.annToMask(annotation).astype(bool)
        assert annotation["area"] == mask.sum()
        left, top, width, height = map(int, annotation["bbox"])
        assert mask[top : top + height, left : left + width].sum() == mask.sum()
        rebuilt[mask] = annotation["category_id"]
    np.testing.assert_array_equal(rebuilt, labels)
    assert all(
        isinstance(a["segmentation"]["counts"], str) for a in json.loads(content)["annotations"]
    )


def test_areas_count_every_class(labels):
    areas = class_areas(labels, NAMES)
    assert list(areas) == list(NAMES)
    assert areas["cat"] == (labels == 1).sum()
    assert sum(areas.values()) == labels.size


def test_a_format_that_is_unknown_or_not_installed(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(ValueError, match=r"^format: expected one of png, .*, got 'bmp'$"):
        find_format("bmp")
    monkeypatch.setattr(formats, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"^format: coco-rle needs pycocotools: pip install"):
        find_format("coco-rle")
    assert find_format("png").suffix == ".png"
