"""Files made to harm: bombs, forged headers, nesting, pickles and PostScript."""

import hashlib
import io
import json
import struct
import tarfile
import zipfile
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import EpsImagePlugin
from scipy.io import savemat

from napari_deepcrf.crf import DenseCRF
from napari_deepcrf.data import matlab, npz
from napari_deepcrf.data.image_files import read_image, read_rgb
from napari_deepcrf.data.label_files import read_labels
from napari_deepcrf.data.matlab import read_mat_labels
from napari_deepcrf.data.npy import read_array
from napari_deepcrf.data.published import PUBLISHED, obtain
from napari_deepcrf.data.scribbles import FARTHEST, read_strokes
from napari_deepcrf.data.soft_labels import SoftLabels
from napari_deepcrf.models import VGG16, DeepCRF, UnaryNetwork
from napari_deepcrf.models.checkpoint import read_checkpoint, write_checkpoint
from napari_deepcrf.models.imagenet import load_imagenet
from napari_deepcrf.session.annotations import ScribbleStore

pytestmark = pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")


def png(width: int, height: int) -> bytes:
    """A PNG of this size by its header; its pixels are those of one row."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"".join(
        [
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", header),
            chunk(b"IDAT", zlib.compress(bytes(width + 1))),
            chunk(b"IEND", b""),
        ]
    )


def tiff(width: int, height: int, strips: int, *, compressed: bool) -> bytes:
    """A grey TIFF whose strips are one and the same piece of the file."""
    rows = height // strips
    strip = zlib.compress(bytes(width * rows)) if compressed else bytes(64)
    tags = [
        (256, 4, [width]),
        (257, 4, [height]),
        (258, 3, [8]),
        (259, 3, [8 if compressed else 1]),
        (262, 3, [1]),
        (273, 4, [8] * strips),
        (277, 3, [1]),
        (278, 4, [rows]),
        (279, 4, [len(strip)] * strips),
    ]
    directory = 8 + len(strip) + len(strip) % 2
    behind = directory + 2 + 12 * len(tags) + 4
    entries, extra = b"", b""
    for tag, kind, values in tags:
        data = struct.pack(f"<{len(values)}{'HI'[kind == 4]}", *values)
        if len(data) > 4:
            extra += data
            data = struct.pack("<I", behind + len(extra) - len(data))
        entries += struct.pack("<HHI", tag, kind, len(values)) + data.ljust(4, b"\0")
    head = struct.pack("<2sHI", b"II", 42, directory) + strip.ljust(directory - 8, b"\0")
    return head + struct.pack("<H", len(tags)) + entries + bytes(4) + extra


@pytest.mark.parametrize("read", [read_image, read_labels, read_rgb])
@pytest.mark.parametrize("size", [(60_000, 60_000), (13_000, 13_000), (4000, 9000)])
def test_a_png_that_claims_a_huge_size(read, size, tmp_path, refused, little_memory):
    path = tmp_path / "bomb.png"
    path.write_bytes(png(*size))
    refused(read, path)


@pytest.mark.parametrize(
    "content",
    [
        tiff(60_000, 60_000, 1, compressed=False),
        tiff(60_000, 60_000, 60, compressed=False),
        tiff(20_000, 20_000, 500, compressed=True),
    ],
    ids=["one strip", "shared strips", "deflated zeros"],
)
def test_a_tiff_larger_than_its_file(content, tmp_path, refused, little_memory):
    path = tmp_path / "bomb.tif"
    path.write_bytes(content)
    refused(read_image, path)


def test_the_forged_tiffs_are_sound_but_for_their_size(tmp_path):
    path = tmp_path / "small.tif"
    path.write_bytes(tiff(300, 200, 4, compressed=True))
    assert read_image(path).shape == (200, 300)
    path.write_bytes(tiff(8, 8, 1, compressed=False))
    assert read_image(path).shape == (8, 8)


@pytest.mark.parametrize("read", [read_image, read_labels, read_rgb])
@pytest.mark.parametrize("name", ["photo.png", "photo.jpg"])
def test_postscript_is_handed_to_no_program(read, name, tmp_path, refused, monkeypatch):
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_, **__: pytest.fail("it was run"))
    path = tmp_path / name
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n")
    refused(read, path)


def mat(variable: bytes) -> bytes:
    """A MATLAB file with one compressed variable."""
    head = b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack("<H", 0x100) + b"IM"
    packed = zlib.compress(variable)
    return head + struct.pack("<II", 15, len(packed)) + packed


def nested_cells(depth: int) -> bytes:
    """A variable GTcls that is a cell in a cell in a cell …"""
    layers, size = [], 0
    for level in range(depth):
        name = b"GTcls\0\0\0" if level == depth - 1 else b""
        body = struct.pack("<IIII", 6, 8, 1, 0) + struct.pack("<IIii", 5, 8, 1, 1)
        body += struct.pack("<II", 1, min(len(name), 5)) + name
        size += len(body)
        layers.append(struct.pack("<II", 14, size) + body)
        size += 8
    return b"".join(reversed(layers))


def test_nested_matlab_cells_do_not_exhaust_the_stack(tmp_path, refused):
    """SciPy's reader kills the process here."""
    path = tmp_path / "deep.mat"
    path.write_bytes(mat(nested_cells(200_000)))
    refused(read_mat_labels, path)


def test_a_matlab_variable_that_inflates_without_end(tmp_path, refused, little_memory, monkeypatch):
    monkeypatch.setattr(matlab, "_MOST_BYTES", 1 << 20)
    path = tmp_path / "bomb.mat"
    path.write_bytes(mat(struct.pack("<II", 14, 1 << 24) + bytes(1 << 24)))
    refused(read_mat_labels, path)


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"other": 3}, "no struct GTcls"),
        ({"GTcls": np.ones((2, 3))}, "no struct GTcls"),
        ({"GTcls": {"Boundaries": 1}}, "no field Segmentation"),
        ({"GTcls": {"Segmentation": "a text"}}, r"no \(H, W\) array"),
        ({"GTcls": {"Segmentation": np.ones((2, 3, 4))}}, r"no \(H, W\) array"),
        ({"GTcls": {"Segmentation": np.full((2, 3), 300)}}, "no class indices from 0 to 255"),
        ({"GTcls": {"Segmentation": np.full((2, 3), 0.5)}}, "no class indices from 0 to 255"),
    ],
)
@pytest.mark.parametrize("compressed", [False, True])
def test_matlab_files_with_something_else_in_them(variables, message, compressed, tmp_path):
    path = tmp_path / "other.mat"
    savemat(path, variables, do_compression=compressed)
    with pytest.raises(ValueError, match=rf"other\.mat: expected SBD's GTcls.*\({message}"):
        read_mat_labels(path)


@pytest.mark.parametrize("size", range(128, 300, 8))
def test_matlab_files_that_end_too_soon(size, tmp_path, refused):
    whole = tmp_path / "whole.mat"
    savemat(whole, {"GTcls": {"Segmentation": np.ones((5, 7), np.uint8)}})
    path = tmp_path / "cut.mat"
    path.write_bytes(whole.read_bytes()[:size])
    refused(read_mat_labels, path)


class Explosive:
    def __reduce__(self):
        return (pytest.fail, ("the pickle was run",))


def read_soft(path: Path) -> object:
    return SoftLabels.load(path, ("a",))


@pytest.mark.parametrize("read", [read_soft, read_array])
def test_pickled_arrays_are_never_run(read, tmp_path, refused):
    path = tmp_path / "evil.npz"
    np.savez(path, a=np.array([Explosive()]))
    refused(read, path)
    path = tmp_path / "evil.npy"
    np.save(path, np.array([Explosive()]))
    refused(read, path)


def array_header(shape: str, dtype: str = "<f2") -> bytes:
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}}}".encode()
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


@pytest.mark.parametrize(
    "header",
    [
        array_header("(60000, 60000, 60000)"),
        array_header(f"({10**30},)"),
        array_header("(-1, 3)"),
        array_header("(" * 300 + ")" * 300),
        array_header("__import__('os')"),
        array_header("(3,)", "|O"),
        array_header("(3,)", "|V99999999"),
    ],
    ids=["huge", "beyond 64 bits", "negative", "nested", "a call", "objects", "wide"],
)
def test_forged_array_headers(header, tmp_path, refused, little_memory):
    path = tmp_path / "forged.npy"
    path.write_bytes(header + bytes(100))
    refused(read_array, path)
    path = tmp_path / "forged.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.npy", header + bytes(100))
    refused(read_soft, path)


def test_an_archive_that_inflates_without_end(tmp_path, refused, little_memory, monkeypatch):
    monkeypatch.setattr(npz, "MOST_INFLATED", 1 << 20)
    zeros = np.zeros((4, 1 << 10, 1 << 10), np.float16)
    path = tmp_path / "bomb.npz"
    np.savez_compressed(path, a=zeros)
    refused(read_soft, path)
    np.savez_compressed(tmp_path / "key.npz", scribbles=zeros, classes="[]")
    assert ScribbleStore(tmp_path).load("key", lambda _name, _index: (0, 0, 0)) is None
    np.savez(path, a=zeros)  # as large as it says: no bomb
    assert read_soft(path).maps[0].shape == zeros.shape


@pytest.mark.parametrize(
    "values", [np.full((2, 3, 4), np.nan), np.ones((2, 3)), np.ones((1, 1, 1), int)]
)
def test_soft_labels_that_are_none(values, tmp_path, refused):
    path = tmp_path / "soft.npz"
    np.savez(path, a=values)
    refused(read_soft, path)


@pytest.mark.parametrize("far", ["inf", "-inf", "nan", "1e300", "1e9", str(FARTHEST + 1)])
def test_strokes_to_the_end_of_the_world(far, tmp_path, refused):
    path = tmp_path / "strokes.txt"
    path.write_text(f"1,2,3,4,5\n1,2,3,{far},5\n")
    refused(lambda p: read_strokes(p, (30, 40), num_classes=3), path)


@pytest.fixture
def model() -> DeepCRF:
    torch.manual_seed(0)
    network = UnaryNetwork(VGG16(3, width=0.02, head="smallfov"), input_size=40)
    return DeepCRF(network, DenseCRF(), ("sky", "sea", "sand"))


def changed(config: dict, place: str, value: object) -> dict:
    """The configuration with another value at ``a.b``."""
    *parents, name = place.split(".")
    inner = config
    for parent in parents:
        inner = inner[parent]
    inner[name] = value
    return config


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("network", None),
        ("network.width", 1e6),
        ("network.width", 1e300),
        ("network.width", float("nan")),
        ("network.width", "wide"),
        ("network.num_classes", 10**12),
        ("network.num_classes", 10**30),
        ("network.num_classes", -1),
        ("network.num_classes", [3]),
        ("network.head", {"7x7": 1}),
        ("network.input_size", "40"),
        ("network.scales", 1.0),
        ("network.scales", [None]),
        ("network.batch_norm", "yes"),
        ("network.nonsense", 1),
        ("architecture", ["vgg16-dense-crf"]),
        ("class_names", "abc"),
        ("class_names", [1, 2, 3]),
        ("class_names", ["a", "b"]),
        ("crf", []),
        ("crf.iterations", 10**30),
        ("crf.iterations", "5"),
        ("crf.parameters", 3),
        ("crf.parameters", {"theta_alpha": float("nan")}),
        ("crf.parameters", {"theta_alpha": 10**400}),
        ("crf.extra_kernels", [3]),
        ("crf.compatibility", [[1.0, 2.0], [3.0]]),
        ("crf.compatibility", [[[1.0]]]),
        ("crf.compatibility", ["a"]),
        ("crf.quality", "best"),
        ("crf.unheard_of", 1),
    ],
    ids=lambda value: str(value)[:20],
)
def test_checkpoints_with_a_forged_configuration(
    place, value, model, tmp_path, refused, little_memory
):
    path = tmp_path / "forged.safetensors"
    config = changed(model.configuration(), place, value)
    write_checkpoint(path, model.network.state_dict(), config)
    refused(DeepCRF.load, path)


@pytest.mark.parametrize(
    "forge",
    [
        lambda weight: weight.to(torch.int8),
        lambda weight: weight > 0,
        lambda weight: weight.to(torch.float8_e4m3fn),
        lambda weight: torch.complex(weight, weight),
        lambda weight: weight[:1],
        lambda weight: weight * float("inf"),
        lambda weight: None,
    ],
    ids=["int8", "bool", "float8", "complex", "shape", "infinite", "missing"],
)
def test_checkpoints_with_other_tensors(forge, model, tmp_path, refused):
    tensors = model.network.state_dict()
    forged = forge(tensors.pop("backbone.score.weight"))
    if forged is not None:
        tensors["backbone.score.weight"] = forged
    path = tmp_path / "forged.safetensors"
    write_checkpoint(path, tensors, model.configuration())
    refused(DeepCRF.load, path)


def safetensors(header: object, data: bytes = b"", *, length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


TENSOR = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    "content",
    [
        safetensors({}, length=2**63),
        safetensors({}, length=2**40),
        safetensors(b"[" * 100_000),
        safetensors({"a": {**TENSOR, "shape": [2**62, 4]}}, bytes(8)),
        safetensors({"a": {**TENSOR, "shape": [2**40]}}, bytes(8)),
        safetensors({"a": {**TENSOR, "data_offsets": [0, 2**40]}}, bytes(8)),
        safetensors({"a": {**TENSOR, "data_offsets": [8, 0]}}, bytes(8)),
        safetensors({"a": TENSOR, "b": TENSOR}, bytes(8)),
        safetensors({"a": {**TENSOR, "dtype": "F99"}}, bytes(8)),
        safetensors({"a": TENSOR, "__metadata__": {"config": 3}}, bytes(8)),
        safetensors({"a": TENSOR, "__metadata__": []}, bytes(8)),
    ],
    ids=range(11),
)
def test_forged_safetensors_headers(content, tmp_path, refused, little_memory):
    path = tmp_path / "forged.safetensors"
    path.write_bytes(content)
    refused(read_checkpoint, path)


@pytest.mark.parametrize("config", ["[" * 100_000, "9" * 5000, "NaN", '"' + "a" * 99, "\ud800"])
def test_checkpoints_whose_configuration_is_no_json_object(config, tmp_path, refused):
    metadata = {"format": "napari-deepcrf", "version": "1", "config": config}
    path = tmp_path / "forged.safetensors"
    path.write_bytes(safetensors({"__metadata__": metadata, "a": TENSOR}, bytes(8)))
    refused(DeepCRF.load, path)


@pytest.mark.parametrize("weight", [None, 3, torch.tensor(1.0), torch.ones(3, 5)])
def test_imagenet_files_with_something_else_in_them(weight, tmp_path, refused):
    path = tmp_path / "vgg16.pth"
    torch.save({"features.0.weight": weight, "features.0.bias": torch.ones(64)}, path)
    with torch.device("meta"):
        network = VGG16(2)
    refused(lambda p: load_imagenet(network, p), path)


KINDS = [
    tarfile.REGTYPE,
    tarfile.SYMTYPE,
    tarfile.LNKTYPE,
    tarfile.CHRTYPE,
    tarfile.BLKTYPE,
    tarfile.FIFOTYPE,
    tarfile.DIRTYPE,
]
parts = st.sampled_from(
    ["..", ".", "", "a", "b", "/", "benchmark_RELEASE/dataset", "\\..\\", "é b"]
)
members = st.lists(
    st.tuples(
        st.lists(parts, min_size=1, max_size=4).map("/".join),
        st.sampled_from(KINDS),
        st.sampled_from(["a", "..", "/etc/passwd", "../../../outside", "benchmark_RELEASE"]),
    ),
    max_size=5,
)
DATA = "benchmark_RELEASE/dataset"


@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(members=members)
@example(members=[(f"{DATA}/a", tarfile.SYMTYPE, ".."), (f"{DATA}/a/b", tarfile.REGTYPE, "")])
@example(members=[(f"{DATA}/a", tarfile.LNKTYPE, "/etc/passwd")])
@example(members=[(f"{DATA}/a", tarfile.REGTYPE, ""), (f"{DATA}/a/b", tarfile.REGTYPE, "")])
@example(members=[(f"/{DATA}/a", tarfile.REGTYPE, "")])
@example(members=[(f"{DATA}/../../../a", tarfile.REGTYPE, "")])
@example(members=[(f"{DATA}/null", tarfile.CHRTYPE, "")])
def test_members_of_archives_stay_inside(members, tmp_path_factory, outcome):
    folder = tmp_path_factory.mktemp("place") / "inside"
    folder.mkdir()
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, kind, link in [(f"{DATA}/train.txt", tarfile.REGTYPE, ""), *members]:
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, link
            member.size = 3 if kind == tarfile.REGTYPE else 0
            archive.addfile(member, io.BytesIO(b"abc"))
    path = folder / "sbd.tar"
    path.write_bytes(stream.getvalue())
    digest = f"md5:{hashlib.md5(stream.getvalue()).hexdigest()}"
    dataset = replace(PUBLISHED["sbd"], url=f"http://127.0.0.1:9/{path.name}", digest=digest)
    outcome(lambda p: obtain(dataset, p.parent, progress=False), path)
    assert list(folder.parent.iterdir()) == [folder]
    inside = [place for place in folder.rglob("*") if place != path]
    assert all(place.is_dir() or place.is_file() for place in inside)
    assert not any(place.is_symlink() for place in inside)
    assert all(place.read_bytes() == b"abc" for place in inside if place.is_file())
