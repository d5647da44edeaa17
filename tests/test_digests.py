"""Digests of files: by content, the same in memory and on the disk, in little memory."""

import hashlib
import tracemalloc
from pathlib import Path

from napari_deepcrf.digests import BLOCK, digest, digest_path


def test_names_and_contents_are_told_apart():
    assert digest({"a": b"1", "b": b"2"}) == digest({"b": b"2", "a": b"1"})
    different = [{"a": b"12"}, {"a1": b"2"}, {"a": b"1", "b": b""}, {"": b"12"}, {}]
    assert len({digest(files) for files in different}) == len(different)
    assert digest({}) == hashlib.sha256().hexdigest()


def test_the_disk_has_the_digest_of_memory(tmp_path: Path):
    files = {"a": bytes(range(256)) * (BLOCK // 100), "b/c": b"", "b.txt": b"1"}
    for name, content in files.items():
        path = tmp_path / "folder" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    assert digest_path(tmp_path / "folder") == digest(files)
    assert digest_path(tmp_path / "folder" / "a") == digest({"": files["a"]})
    assert digest_path(tmp_path / "nothing") is None


def test_large_results_are_not_read_into_memory(tmp_path: Path):
    for name in ("a", "b"):
        with (tmp_path / name).open("wb") as stream:
            stream.truncate(16 * BLOCK)
    tracemalloc.start()
    try:
        digest_path(tmp_path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 * BLOCK
