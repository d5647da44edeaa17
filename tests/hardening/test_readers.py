"""Damaged files of every kind: each reader gives a value or an error of ours, in one line.

Every kind of file is made whole once and then damaged as hypothesis draws it: cut short, parts
overwritten, bytes inserted, or replaced by something else. The draws are the same in every run;
what once went wrong is kept as an example.
"""

import hashlib
import io
import json
import tarfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zarr
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.io import savemat

from napari_deepcrf.batch.formats import FORMATS
from napari_deepcrf.batch.images import largest_size
from napari_deepcrf.batch.records import RECORDS, ResultFolder
from napari_deepcrf.batch.summary import write_summary
from napari_deepcrf.crf import DenseCRF
from napari_deepcrf.data.folder import FolderDataset
from napari_deepcrf.data.image_files import read_image, read_rgb
from napari_deepcrf.data.label_files import read_labels
from napari_deepcrf.data.matlab import read_mat_labels
from napari_deepcrf.data.npy import read_array
from napari_deepcrf.data.published import PUBLISHED, obtain
from napari_deepcrf.data.scribbles import read_strokes
from napari_deepcrf.data.soft_labels import SoftLabels
from napari_deepcrf.data.voc import VOCDataset
from napari_deepcrf.inference.label_pyramid import LabelPyramid
from napari_deepcrf.inference.lazy_image import LazyImage
from napari_deepcrf.inference.tiled_run_record import TiledRunRecord
from napari_deepcrf.models import VGG16, DeepCRF, UnaryNetwork
from napari_deepcrf.session.annotations import ScribbleStore
from napari_deepcrf.training.records import read_events
from napari_deepcrf.training.state import read_state, write_state

LABELS = (np.arange(12 * 17, dtype=np.uint8) % 7).reshape(12, 17)
PHOTO = np.random.default_rng(0).integers(0, 256, (12, 17, 3), dtype=np.uint8)


@dataclass(frozen=True)
class Kind:
    """A kind of file: its name, how a whole one is made at a path, and who reads it."""

    name: str
    make: Callable[[Path], object]
    read: Callable[[Path], object]


def picture(**options: Any) -> Callable[[Path], object]:
    return lambda path: Image.fromarray(PHOTO).save(path, **options)


def palette(path: Path) -> None:
    image = Image.fromarray(LABELS).convert("P")
    image.putpalette(bytes(range(256)) * 3)
    image.save(path)


def tiff(compression: str | None) -> Callable[[Path], object]:
    import tifffile

    return lambda path: tifffile.imwrite(path, PHOTO, compression=compression)


def mat(compressed: bool) -> Callable[[Path], object]:
    truth = {"GTcls": {"Boundaries": np.eye(3), "Segmentation": LABELS}}
    return lambda path: savemat(path, truth, do_compression=compressed)


def checkpoint(path: Path) -> None:
    torch.manual_seed(0)
    network = UnaryNetwork(VGG16(3, width=0.02, head="smallfov"), input_size=40)
    DeepCRF(network, DenseCRF(), ("sky", "sea", "sand")).save(path)


def events(path: Path) -> None:
    lines = [{"event": "StepDone", "stage": "unary", "step": n, "loss": 1.0} for n in range(3)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def folder_list(path: Path) -> None:
    for folder in ("images", "labels"):
        (path.parent / folder).mkdir(exist_ok=True)
        for name in "ab":
            (path.parent / folder / f"{name}.png").touch()
    path.write_text("a\nb\n")


def voc_list(path: Path) -> None:
    for folder in ("JPEGImages", "SegmentationClass"):
        (path.parents[2] / folder).mkdir(exist_ok=True)
    for name in "ab":
        (path.parents[2] / f"JPEGImages/{name}.jpg").touch()
        (path.parents[2] / f"SegmentationClass/{name}.png").touch()
    path.write_text("a\nb\n")


def result_record(path: Path) -> None:
    (path.parents[1] / "a.png").touch()
    record = dict.fromkeys(("image", "image_sha256", "model_sha256", "sha256"), "0")
    path.write_text(
        json.dumps({**record, "size": [3, 4], "areas": {"sky": 12}, "replaces": None}, indent=1)
    )


def read_records(path: Path) -> object:
    results = ResultFolder(path.parents[1], FORMATS["png"])
    write_summary(results)
    return list(results.records())


def run_file(path: Path) -> None:
    output = path.parent.with_suffix("")
    output.mkdir(exist_ok=True)
    contents = {"run.json": b'{"tile": 64}', "tiles.txt": b"1\n2\n30\n"}
    if path.name in contents:
        path.write_bytes(contents[path.name])
    else:
        np.savez(path, shape=np.array([3, 4]), map0=np.zeros((2, 3, 4), np.float32))


def read_run(path: Path) -> object:
    record = TiledRunRecord(path.parent)
    return record.tile, record.finished(), record.scores()


def pyramid(path: Path) -> None:
    names = ("a", "b")
    LabelPyramid.create(path.parent, (64, 64), tile=64, class_names=names, attributes={})


def tgz(path: Path) -> None:
    with tarfile.open(path, "w:gz") as archive:
        member = tarfile.TarInfo("benchmark_RELEASE/dataset/train.txt")
        member.size = 4
        archive.addfile(member, io.BytesIO(b"a\nb\n"))


def unpack(path: Path) -> object:
    digest = f"md5:{hashlib.md5(path.read_bytes()).hexdigest()}"
    url = f"http://127.0.0.1:9/{path.name}"
    return obtain(replace(PUBLISHED["sbd"], url=url, digest=digest), path.parent, progress=False)


SEVERAL = {"shape": np.array([2]), "scribbles": LABELS, "classes": json.dumps(["a", "b"])}
KINDS = [
    Kind("model.safetensors", checkpoint, DeepCRF.load),
    Kind("unary-last.safetensors", lambda p: write_state(p, {"a": torch.ones(3)}, {}), read_state),
    Kind("labels.png", palette, read_labels),
    Kind("photo.jpg", picture(format="JPEG"), read_rgb),
    *(Kind(f"photo.{end}", picture(), read_image) for end in ("png", "gif", "bmp", "webp", "ppm")),
    Kind("photo.tif", tiff(None), read_image),
    Kind("deflated.tiff", tiff("zlib"), read_image),
    Kind("header.png", picture(), lambda p: largest_size([p])),
    Kind("array.npy", lambda p: np.save(p, LABELS), read_array),
    Kind("lazy.npy", lambda p: np.save(p, PHOTO), lambda p: LazyImage.of(p).shape),
    Kind("cls.mat", mat(False), read_mat_labels),
    Kind("deflated.mat", mat(True), read_mat_labels),
    Kind("strokes.txt", lambda p: p.write_text("1,2,3,4.5,6\n0,7,7\n"),
         lambda p: read_strokes(p, (12, 17), num_classes=3)),
    Kind("soft.npz", lambda p: np.savez(p, a=np.ones((2, 3, 4), np.float16)),
         lambda p: SoftLabels.load(p, ("a",))),
    Kind("key.npz", lambda p: np.savez_compressed(p, **SEVERAL),
         lambda p: ScribbleStore(p.parent).load("key", lambda _name, _index: (0, 0, 0))),
    Kind("events.jsonl", events, lambda p: [(e["stage"], e["step"]) for e in read_events(p)]),
    Kind("train.txt", folder_list, lambda p: FolderDataset(p.parent, "train").names),
    Kind("classes.txt", folder_list, lambda p: FolderDataset(p.parent).class_names),
    Kind("ImageSets/Segmentation/val.txt", voc_list, lambda p: VOCDataset(p.parents[2], "val")),
    Kind(f"{RECORDS}/a.png.json", result_record, read_records),
    *(Kind(f"out.zarr.run/{name}", run_file, read_run)
      for name in ("run.json", "tiles.txt", "scores.npz")),
    Kind("labels.zarr/zarr.json", pyramid, lambda p: LabelPyramid.open(p.parent)),
    Kind("image.zarr/zarr.json", lambda p: zarr.save_array(p.parent, LABELS, zarr_format=3),
         lambda p: LazyImage.of(p.parent).shape),
    Kind("archive.tgz", tgz, unpack),
]  # fmt: skip

places = st.floats(0, 1, exclude_max=True)
pieces = st.one_of(
    st.binary(max_size=12),
    st.sampled_from(
        [b"\xff" * 8, b"\0" * 8, b"-1", b"1e999", b"NaN", b"9" * 5000, b"[" * 3000, b"{}", b"\n"]
    ),
)
damages = st.lists(
    st.one_of(
        st.tuples(st.just("cut"), places, st.just(b"")),
        st.tuples(st.sampled_from(["set", "insert"]), places, pieces),
        st.tuples(st.just("instead"), st.just(0.0), pieces),
    ),
    min_size=1,
    max_size=3,
)


def damage(content: bytes, changes: list[tuple[str, float, bytes]]) -> bytes:
    for change, place, piece in changes:
        at = int(place * len(content))
        if change == "cut":
            content = content[:at]
        elif change == "set":
            content = content[:at] + piece + content[at + len(piece) :]
        elif change == "insert":
            content = content[:at] + piece + content[at:]
        else:
            content = piece
    return content


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Callable[[Kind], tuple[Path, bytes]]:
    """A kind's file, and its content while it was whole."""
    made: dict[str, tuple[Path, bytes]] = {}

    def find(kind: Kind) -> tuple[Path, bytes]:
        if kind.name not in made:
            path = tmp_path_factory.mktemp("whole") / kind.name
            if not kind.name.endswith("zarr.json"):
                path.parent.mkdir(parents=True, exist_ok=True)
            kind.make(path)
            made[kind.name] = path, path.read_bytes()
        return made[kind.name]

    return find


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_whole_files_are_read(kind, whole):
    path, content = whole(kind)
    path.write_bytes(content)
    assert kind.read(path) is not None


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
@settings(
    max_examples=30,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(changes=damages)
@example(changes=[("instead", 0.0, b"")])
@example(changes=[("cut", 0.5, b"")])
@example(changes=[("instead", 0.0, b"5")])
@example(changes=[("instead", 0.0, b"[" * 100_000)])
@example(changes=[("instead", 0.0, b"9" * 5000)])
@example(changes=[("instead", 0.0, b"\xff\xfe\x00")])
@example(changes=[("insert", 0.0, b"1,inf,2\n")])
@example(changes=[("insert", 0.0, b"1,1e300,2\n")])
def test_damaged_files_are_read_or_refused(kind, changes, whole, outcome):
    path, content = whole(kind)
    path.write_bytes(damage(content, changes))
    outcome(kind.read, path)
