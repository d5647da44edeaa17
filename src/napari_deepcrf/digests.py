"""SHA-256 over files, in memory or on the disk: the same for the same names and bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

BLOCK = 1 << 20
"""Bytes of a file that are in memory at once."""


def digest(files: Mapping[str, bytes]) -> str:
    """SHA-256 over names and contents, the same for equal files in any order."""
    return _digest((name, len(files[name]), (files[name],)) for name in sorted(files))


def digest_path(path: Path) -> str | None:
    """`digest` of a file under the empty name, or of a folder's files by their paths in it.

    None where nothing is. Files are read a block at a time, however large. OSError where one cannot
    be read.
    """
    if path.is_file():
        return _digest([("", path.stat().st_size, _blocks(path))])
    if path.is_dir():
        files = {p.relative_to(path).as_posix(): p for p in path.rglob("*") if p.is_file()}
        return _digest(
            (name, files[name].stat().st_size, _blocks(files[name])) for name in sorted(files)
        )
    return None


def _digest(files: Iterable[tuple[str, int, Iterable[bytes]]]) -> str:
    """Lengths go before what they measure: bytes that change files give another digest."""
    total = hashlib.sha256()
    for name, size, blocks in files:
        encoded = name.encode()
        total.update(len(encoded).to_bytes(8, "big") + encoded + size.to_bytes(8, "big"))
        for block in blocks:
            total.update(block)
    return total.hexdigest()


def _blocks(path: Path) -> Iterable[bytes]:
    with path.open("rb") as stream:
        while block := stream.read(BLOCK):
            yield block
