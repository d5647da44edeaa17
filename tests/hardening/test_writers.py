"""A crash in the middle of any write leaves the old file whole, and nothing half written.

Every function that writes a file stands in `WRITERS` and goes through `atomic_write`, or in `RAW`
with the reason why it need not. Both lists are compared with the sources.
"""

import ast
import errno
import io
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch

import napari_deepcrf
from napari_deepcrf.batch import records
from napari_deepcrf.batch.formats import FORMATS
from napari_deepcrf.batch.records import Record, ResultFolder
from napari_deepcrf.batch.summary import write_summary
from napari_deepcrf.data import copies
from napari_deepcrf.data.label_files import write_labels
from napari_deepcrf.data.npy import write_array
from napari_deepcrf.data.samples import Sample
from napari_deepcrf.inference.label_pyramid import LabelPyramid
from napari_deepcrf.inference.score_maps import ScoreMaps
from napari_deepcrf.inference.tiled_run_record import TiledRunRecord
from napari_deepcrf.inference.tiling import Tile
from napari_deepcrf.models.checkpoint import write_checkpoint
from napari_deepcrf.session.annotations import AnnotationClass, ScribbleStore
from napari_deepcrf.training import report
from napari_deepcrf.training.curves import write_curves
from napari_deepcrf.training.events import StageStarted
from napari_deepcrf.training.records import RunRecord
from napari_deepcrf.training.state import write_state

SOURCES = Path(napari_deepcrf.__file__).parent


def labels(version: int) -> np.ndarray:
    return np.full((9, 11), version, np.uint8)


def sample(version: int) -> Sample:
    return Sample("a", np.full((9, 11, 3), version, np.uint8), labels(version))


def forget(folder: Path, version: int) -> None:
    record = RunRecord.__new__(RunRecord)
    record.path = folder / "events.jsonl"
    line = f'{{"event": "StepDone", "stage": "joint", "step": {version}}}\n'
    with patch("pathlib.Path.read_bytes", return_value=line.encode()):
        record._forget_after(StageStarted("unary", 0, 5))


def galleries(folder: Path, version: int) -> None:
    with patch.object(report, "_predict", return_value=(labels(version), labels(version))):
        list(report._galleries(folder, None, [sample(version)], [0.5]))


def curves(folder: Path, version: int) -> None:
    event = {"event": "Validated", "stage": "unary"}
    list(write_curves(folder, [{**event, "step": n, "mean_iou": version / 5} for n in (1, 2)]))


def record(version: int) -> Record:
    hashes = dict.fromkeys(("image", "image_sha256", "model_sha256", "sha256"), str(version))
    return Record(size=(9, 11), areas={"sky": 99}, replaces=None, **hashes)


def result(folder: Path, version: int) -> None:
    with patch.object(ResultFolder, "note"):
        files = {"": bytes([version] * 99)}
        ResultFolder(folder, FORMATS["png"]).write("a", files, record(version))


def summary(folder: Path, version: int) -> None:
    rows = [(f"{version}.png", record(version))]
    with patch.object(ResultFolder, "records", return_value=rows):
        write_summary(ResultFolder(folder, FORMATS["png"]))


def scores(folder: Path, version: int) -> None:
    maps = (np.full((2, 3, 4), version, np.float32),)
    TiledRunRecord(folder).keep_scores(ScoreMaps((24, 32), maps))


WRITERS: dict[str, Callable[[Path, int], object]] = {
    "batch.records:ResultFolder.note": lambda folder, n: ResultFolder(folder, FORMATS["png"]).note(
        "a", record(n)
    ),
    "batch.records:ResultFolder.write": result,
    "batch.records:_write_folder": lambda folder, n: records._write_folder(
        folder / "a.zarr", {"zarr.json": b"{}", "0/c/0": bytes([n] * 99)}
    ),
    "batch.summary:write_summary": summary,
    "data.copies:_save": lambda folder, n: copies._save(folder / "copies.npz", [sample(n)]),
    "data.label_files:write_labels": lambda folder, n: write_labels(folder / "a.png", labels(n)),
    "data.npy:write_array": lambda folder, n: write_array(folder / "a.npy", labels(n)),
    "inference.tiled_run_record:TiledRunRecord.start": lambda folder, n: TiledRunRecord.start(
        folder / "out", {"tile": n}
    ),
    "inference.tiled_run_record:TiledRunRecord.keep_scores": scores,
    "models.checkpoint:write_checkpoint": lambda folder, n: write_checkpoint(
        folder / "a.safetensors", {"a": torch.full((9,), float(n))}, {}
    ),
    "session.annotations:ScribbleStore.save": lambda folder, n: ScribbleStore(folder).save(
        "key", labels(n), [AnnotationClass("a", (1, 2, 3)), AnnotationClass("b", (4, 5, 6))]
    ),
    "training.curves:write_curves": curves,
    "training.records:RunRecord.__init__": lambda folder, n: RunRecord(folder, {"seed": n}),
    "training.records:RunRecord._forget_after": forget,
    "training.report:_galleries": galleries,
    "training.report:_write": lambda folder, n: report._write(folder / "a.md", f"{n}" * 99),
    "training.state:write_state": lambda folder, n: write_state(
        folder / "a.safetensors", {"a": torch.full((9,), float(n))}, {}
    ),
}

STARTS_ANEW = "inference.tiled_run_record:TiledRunRecord.start"
"""Puts the record of an earlier run away by itself: that run's output is gone."""

RAW = {
    "atomic:atomic_write os.fdopen": "it is what all others go through",
    "atomic:atomic_write os.replace": "it is what all others go through",
    "batch.cluster:ModelPlugin._ready write_bytes": "in a temporary folder of this call",
    "batch.records:_write_folder rename": "a folder that is whole takes its name",
    "batch.records:_write_folder os.rename": "the earlier folder comes back",
    "data.published:_unpack os.replace": "a folder that is whole takes its name",
    "data.published:_unpack_member open": "in a folder that takes its name once it is whole",
    "download:_ResumingDownloader.__call__ os.replace": "to pooch, which checks the hash",
    "download:_ResumingDownloader._receive open": "NAME.part, which the next attempt goes on with",
    "inference.label_pyramid:LabelPyramid.create zarr.create_group": "chunks appear whole",
    "inference.label_pyramid:LabelPyramid.open zarr.open_group": "chunks appear whole",
    "inference.tiled_run_record:TiledRunRecord.add open": "adds a line; half a one is dropped",
    "inference.tiled_run_record:TiledRunRecord.finished open": "cuts half a line off",
    "lattice.numba_cache:discard_outdated touch": "an empty file",
    "plugin.demo:save_pictures save": "the demonstration's pictures, made anew each time",
    "session.warm_up:_remember touch": "an empty file",
    "training.records:RunRecord.add open": "adds a line; half a one is skipped when read",
}


class Calls(ast.NodeVisitor):
    """The calls in a module, each with the function around it."""

    def __init__(self) -> None:
        self.found: list[tuple[str, ast.Call]] = []
        self._around: list[str] = []

    def visit_Call(self, node: ast.Call) -> None:
        self.found.append((".".join(self._around), node))
        self.generic_visit(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self._inside(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self._inside(node)

    visit_AsyncFunctionDef = visit_FunctionDef  # noqa: N815

    def _inside(self, node: ast.ClassDef | ast.FunctionDef) -> None:
        self._around.append(node.name)
        self.generic_visit(node)
        self._around.pop()


def calls() -> Iterator[tuple[str, ast.Call]]:
    """Every call of the package, led by ``module:function``."""
    for path in sorted(SOURCES.rglob("*.py")):
        module = ".".join(path.relative_to(SOURCES).with_suffix("").parts)
        visitor = Calls()
        visitor.visit(ast.parse(path.read_text(encoding="utf-8")))
        yield from ((f"{module}:{around}", call) for around, call in visitor.found)


WRITING = {"write_text", "write_bytes", "touch", "rename", "savez", "savez_compressed", "imsave"}
WRITING |= {"save_file", "copyfile", "copy2", "move", "tofile", "to_csv", "imwrite", "savemat"}
QUALIFIED = {"os.replace", "os.rename", "os.fdopen", "zarr.create_group", "zarr.save_array"}
STREAMS = {"file", "stream", "svg"}
"""What the block of `atomic_write` is given to write to."""


def writing(call: ast.Call) -> str | None:
    """How a call writes a file by itself; ``None`` if it does not."""
    name = ast.unparse(call.func)
    last = name.rsplit(".", 1)[-1]
    arguments = [*call.args, *(keyword.value for keyword in call.keywords)]
    texts = {node.value for node in arguments if isinstance(node, ast.Constant)}
    if last in ("open", "open_group", "memmap", "open_memmap"):
        modes = {text for text in texts if isinstance(text, str) and set(text) <= set("rwaxbt+")}
        conditional = any(isinstance(node, ast.IfExp) for node in arguments)
        writes = conditional or any(set(mode) & set("wax+") for mode in modes)
        return (name if last == "open_group" else last) if writes else None
    if call.args and isinstance(call.args[0], ast.Name) and call.args[0].id in STREAMS:
        return None
    if name in QUALIFIED:
        return name
    if last in WRITING or (last == "save" and name.startswith(("np.", "Image.", "torch."))):
        return last
    return None


def test_every_writer_stands_in_a_list():
    atomic, raw = set(), set()
    for where, call in calls():
        if ast.unparse(call.func) == "atomic_write":
            atomic.add(where)
        how = writing(call)
        if how is not None:
            raw.add(f"{where} {how}")
    assert atomic == set(WRITERS)
    assert raw == set(RAW)


def content(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


class HalfWritten(io.FileIO):
    """A file on a disk that is full after the first half of what is written."""

    def write(self, data) -> int:
        super().write(bytes(data)[: len(bytes(data)) // 2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def full(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


FAULTS = {
    "write": ("fdopen", HalfWritten),
    "fsync": ("fsync", full),
    "replace": ("replace", full),
    "interrupt": ("replace", interrupt),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("writer", WRITERS)
def test_a_crash_leaves_what_was_there(writer, fault, tmp_path, monkeypatch):
    write = WRITERS[writer]
    old = {}
    if writer != STARTS_ANEW:
        write(tmp_path, 1)
        old = content(tmp_path)
        assert old
    with monkeypatch.context() as patched:
        patched.setattr(os, *FAULTS[fault])
        with pytest.raises((OSError, KeyboardInterrupt)):
            write(tmp_path, 2)
    assert content(tmp_path) == old
    write(tmp_path, 2)
    assert content(tmp_path) != old


def test_a_folder_that_cannot_take_its_place_leaves_the_old_one(tmp_path, monkeypatch):
    write = WRITERS["batch.records:_write_folder"]
    write(tmp_path, 1)
    old = content(tmp_path)
    renamed = []

    def second_fails(self: Path, target: Path) -> Path:
        renamed.append(target)
        if len(renamed) == 2:
            full()
        return os.rename(self, target)

    monkeypatch.setattr(Path, "rename", second_fails)
    with pytest.raises(OSError, match="No space left"):
        write(tmp_path, 2)
    assert content(tmp_path) == old


def test_a_chunk_of_a_label_image_appears_whole(tmp_path, monkeypatch):
    path = tmp_path / "labels.zarr"
    pyramid = LabelPyramid.create(path, (64, 64), tile=64, class_names=("a", "b"), attributes={})
    tile = Tile(0, (0, 64), (0, 64))
    pyramid.write(tile, np.ones((64, 64), np.uint8))
    old = content(path)
    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", full)
        with pytest.raises(OSError, match="No space left"):
            pyramid.write(tile, np.full((64, 64), 2, np.uint8))
    LabelPyramid.open(path)
    assert content(path) == old


KILLED = """
import sys, time
from napari_deepcrf.atomic import atomic_write

with atomic_write(sys.argv[1]) as file:
    file.write(b"new" * 100_000)
    file.flush()
    print("half", flush=True)
    time.sleep(60)
"""


def test_a_killed_process_leaves_the_old_file(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"old")
    command = [sys.executable, "-c", KILLED, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout.readline() == "half\n"
        child.kill()
    assert child.returncode
    assert path.read_bytes() == b"old"
