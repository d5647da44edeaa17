"""Readers and writers: model files dropped on the viewer, and label images in VOC's palette."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    LayerData = tuple[np.ndarray, dict[str, Any], str] | tuple[None]
    Reader = Callable[[str | list[str]], list[LayerData]]

PLUGIN, WIDGET = "napari-deepcrf", "DeepCRF"


def model_reader(path: str | list[str]) -> Reader | None:
    """Reader that hands a ``.safetensors`` model to the dock and adds no layer."""
    first = path[0] if isinstance(path, list) else path
    return _use_model if first.lower().endswith(".safetensors") else None


def _use_model(path: str | list[str]) -> list[LayerData]:
    from napari_deepcrf.plugin.commands import open_dock

    open_dock().model_choice.load(path[0] if isinstance(path, list) else path)
    return [(None,)]  # napari's sign for: read, but nothing to show


def label_reader(path: str | list[str]) -> Reader | None:
    """Reader for palette PNG: class indices as a labels layer in VOC's colours."""
    first = path[0] if isinstance(path, list) else path
    if not first.lower().endswith(".png") or not _has_palette(Path(first)):
        return None
    return read_label_layers


def _has_palette(path: Path) -> bool:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            return image.mode == "P"
    except (OSError, UnidentifiedImageError):
        return False


def read_label_layers(path: str | list[str]) -> list[LayerData]:
    """A labels layer for every palette or grey PNG; ValueError for another kind of image."""
    from napari_deepcrf.data.label_files import read_labels
    from napari_deepcrf.data.voc import VOC_CLASSES
    from napari_deepcrf.plugin.palette import class_colours, label_colormap

    layers: list[LayerData] = []
    for one in [path] if isinstance(path, str) else path:
        features = {"index": range(len(VOC_CLASSES)), "class": list(VOC_CLASSES)}
        options = {
            "name": Path(one).stem,
            "colormap": label_colormap(class_colours(VOC_CLASSES), first=0),
            "features": features,
        }
        layers.append((read_labels(one), options, "labels"))
    return layers


def write_voc_labels(path: str, data: Any, _attributes: dict[str, Any]) -> list[str]:
    """Write a labels layer as a palette PNG; a stack's axes of length one are left out.

    Raises
    ------
    ValueError
        If more than two axes are left, or a label is above 255.
    """
    import numpy as np

    from napari_deepcrf.data.label_files import write_labels

    labels = np.squeeze(np.asarray(data))
    if labels.ndim != 2:
        raise ValueError(f"labels: expected (height, width), got shape {np.shape(data)}")
    write_labels(path, labels)
    return [path]
