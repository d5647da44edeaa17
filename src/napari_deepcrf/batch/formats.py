"""Labels as files: what a result looks like in each format, made in memory."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_deepcrf.data.label_files import encode_labels

Labels = NDArray[np.uint8]
Files = Mapping[str, bytes]
"""What a result consists of: one file under the empty name, or a folder's files by their paths."""


@dataclass(frozen=True)
class Format:
    """A way to store the (H, W) labels of one image."""

    suffix: str
    """What the result's name ends with."""
    encode: Callable[[Labels, Sequence[str], str], Files]
    """Turns labels, class names and the image's name into files."""
    requires: str | None = None
    """A module that ``pip install "napari-deepcrf[coco]"`` brings."""


def _png(labels: Labels, class_names: Sequence[str], image: str) -> Files:
    return {"": encode_labels(labels)}


def _numpy(labels: Labels, class_names: Sequence[str], image: str) -> Files:
    stream = io.BytesIO()
    np.save(stream, labels, allow_pickle=False)
    return {"": stream.getvalue()}


def _ome_zarr(labels: Labels, class_names: Sequence[str], image: str) -> Files:
    from napari_deepcrf.batch.ome_zarr import encode

    return encode(labels, class_names)


def _coco_rle(labels: Labels, class_names: Sequence[str], image: str) -> Files:
    from napari_deepcrf.batch.coco import encode

    return {"": encode(labels, class_names, image)}


FORMATS: dict[str, Format] = {
    "png": Format(".png", _png),
    "numpy": Format(".npy", _numpy),
    "ome-zarr": Format(".ome.zarr", _ome_zarr),
    "coco-rle": Format(".coco.json", _coco_rle, requires="pycocotools"),
}


def find_format(name: str) -> Format:
    """The format of a name; ValueError for an unknown one or a library that is not installed."""
    if name not in FORMATS:
        raise ValueError(f"format: expected one of {', '.join(FORMATS)}, got {name!r}")
    found = FORMATS[name]
    if found.requires is not None and find_spec(found.requires) is None:
        raise ValueError(
            f'format: {name} needs {found.requires}: pip install "napari-deepcrf[coco]"'
        )
    return found


def class_areas(labels: NDArray[Any], class_names: Sequence[str]) -> dict[str, int]:
    """How many pixels every class covers."""
    counts = np.bincount(labels.ravel(), minlength=len(class_names))
    return {name: int(count) for name, count in zip(class_names, counts, strict=True)}
