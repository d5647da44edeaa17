"""SBD's label maps, in MATLAB files of version 5."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_MOST_BYTES = 1 << 28
"""A variable may inflate to so many bytes; SBD's take some hundred thousand."""

# Numbers of MATLAB's format, version 5: kinds of elements, and classes of arrays.
_MATRIX, _COMPRESSED = 14, 15
_STRUCT, _NUMERIC = 2, range(6, 16)
_TYPES = {
    1: "i1",
    2: "u1",
    3: "i2",
    4: "u2",
    5: "i4",
    6: "u4",
    7: "f4",
    9: "f8",
    12: "i8",
    13: "u8",
}


def read_mat_labels(path: Path | str) -> NDArray[np.uint8]:
    """(H, W) class indices of a ``cls/*.mat`` file: its field GTcls.Segmentation.

    Only the elements on the way to that field are looked at: SciPy's reader follows the nesting of
    cells wherever a file leads it, until the interpreter's stack is exhausted and the process dies.

    Raises ValueError, naming the file, where it is none; FileNotFoundError where there is none.
    """
    content = Path(path).read_bytes()
    try:
        order = {b"IM": "<", b"MI": ">"}.get(content[126:128])
        if order is None:
            raise ValueError("no MATLAB file of version 5")
        return _segmentation(content[128:], order)
    except (ValueError, zlib.error, struct.error, MemoryError) as error:
        reason = "cut short" if isinstance(error, struct.error) else error
        raise ValueError(f"{path}: expected SBD's GTcls.Segmentation ({reason})") from error


@dataclass(frozen=True)
class _Element:
    """A tagged piece of a file: its kind and content."""

    kind: int
    content: memoryview


@dataclass(frozen=True)
class _Array:
    """A MATLAB array: its class, dimensions and name, and the elements behind these."""

    kind: int
    dimensions: tuple[int, ...]
    name: str
    rest: Iterator[_Element]


def _segmentation(content: bytes, order: str) -> NDArray[np.uint8]:
    for element in _elements(memoryview(content), order):
        array = _array(_inflated(element, order), order)
        if array.name == "GTcls" and array.kind == _STRUCT:
            return _labels(_array(_field(array, "Segmentation", order), order), order)
    raise ValueError("no struct GTcls")


def _elements(content: memoryview, order: str) -> Iterator[_Element]:
    """The elements one behind another, each padded to 8 bytes unless it is compressed."""
    at = 0
    while at < len(content):
        kind, size = struct.unpack_from(f"{order}II", content, at)
        start = at + 8
        if kind >> 16:  # up to 4 bytes, in the tag itself
            kind, size, start = kind & 0xFFFF, kind >> 16, at + 4
            at += 8
        else:
            at = start + (size if kind == _COMPRESSED else -(-size // 8) * 8)
        if start + size > len(content):
            raise ValueError("cut short")
        yield _Element(kind, content[start : start + size])


def _inflated(element: _Element, order: str) -> _Element:
    if element.kind != _COMPRESSED:
        return element
    inflate = zlib.decompressobj()
    content = inflate.decompress(element.content, _MOST_BYTES)
    if inflate.unconsumed_tail:
        raise ValueError(f"a variable of more than {_MOST_BYTES} bytes")
    return _next(_elements(memoryview(content), order))


def _array(element: _Element, order: str) -> _Array:
    if element.kind != _MATRIX:
        raise ValueError("no array")
    rest = _elements(element.content, order)
    flags, dimensions, name = (_next(rest).content for _ in range(3))
    return _Array(
        kind=struct.unpack_from(f"{order}I", flags)[0] & 0xFF,
        dimensions=struct.unpack(f"{order}{len(dimensions) // 4}i", dimensions),
        name=bytes(name).decode("ascii", "replace"),
        rest=rest,
    )


def _field(array: _Array, name: str, order: str) -> _Element:
    """The array that a field of a 1 × 1 struct holds."""
    (length,) = struct.unpack_from(f"{order}i", _next(array.rest).content)
    if length < 1:
        raise ValueError("a struct without names")
    names = bytes(_next(array.rest).content)
    for start in range(0, len(names), length):
        field = _next(array.rest)
        if names[start : start + length].rstrip(b"\0") == name.encode():
            return field
    raise ValueError(f"no field {name}")


def _labels(array: _Array, order: str) -> NDArray[np.uint8]:
    values = _next(array.rest)
    if array.kind not in _NUMERIC or values.kind not in _TYPES or len(array.dimensions) != 2:
        raise ValueError("no (H, W) array of numbers")
    numbers = np.frombuffer(values.content, order + _TYPES[values.kind])
    labels = numbers.astype(np.uint8)
    if not np.array_equal(labels, numbers):
        raise ValueError("no class indices from 0 to 255")
    return np.ascontiguousarray(labels.reshape(array.dimensions, order="F"))


def _next(elements: Iterator[_Element]) -> _Element:
    element = next(elements, None)
    if element is None:
        raise ValueError("cut short")
    return element
