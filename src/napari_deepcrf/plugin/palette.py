"""One fixed colour per class, everywhere."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from napari_deepcrf.data.label_files import voc_palette
from napari_deepcrf.data.voc import VOC_CLASSES

if TYPE_CHECKING:
    from napari.utils import DirectLabelColormap

    from napari_deepcrf.session.annotations import AnnotationClass

RGB = tuple[int, int, int]


def class_colour(name: str, index: int) -> RGB:
    """Colour of a class: VOC's for a VOC name, else the palette's at its position."""
    palette = voc_palette()
    entry = VOC_CLASSES.index(name) if name in VOC_CLASSES else index % len(palette)
    red, green, blue = (int(v) for v in np.asarray(palette)[entry])
    return red, green, blue


def class_colours(
    names: tuple[str, ...], chosen: Iterable[AnnotationClass] = ()
) -> tuple[RGB, ...]:
    """Colours of all classes of a model: their own, for those in a class list of the user's."""
    own = {entry.name: entry.colour for entry in chosen}
    return tuple(own.get(name) or class_colour(name, index) for index, name in enumerate(names))


def label_colormap(colours: tuple[RGB, ...], *, first: int) -> DirectLabelColormap:
    """Napari colormap that gives label ``first + k`` the k-th colour.

    Label 0 is transparent: background in results (``first=0``), unlabelled in scribbles
    (``first=1``). Labels without a class are shown in a neutral grey.
    """
    from napari.utils import DirectLabelColormap

    table: dict[int | None, tuple[float, float, float, float]] = {
        first + k: (r / 255, g / 255, b / 255, 1.0) for k, (r, g, b) in enumerate(colours)
    }
    table[0] = (0.0, 0.0, 0.0, 0.0)
    table[None] = (0.5, 0.5, 0.5, 1.0)
    return DirectLabelColormap(color_dict=table)
