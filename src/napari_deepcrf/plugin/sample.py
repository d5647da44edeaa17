"""Sample photos that come inside scikit-image: no download."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    LayerData = tuple[np.ndarray, dict[str, Any], str]


def cat() -> list[LayerData]:
    """Photo of the cat Chelsea, 300×451 RGB (CC0, by Stéfan van der Walt)."""
    return _photo("chelsea")


def cat_with_scribbles() -> list[LayerData]:
    """The cat with a few strokes of ours on it: classes 1 (beside the cat) and 2 (the cat)."""
    import numpy as np

    photo = _photo("chelsea")
    scribbles = np.zeros(photo[0][0].shape[:2], np.uint8)
    for label, start, end in _STROKES:
        for t in np.linspace(0, 1, 200):
            row, column = (round(a + t * (b - a)) for a, b in zip(start, end, strict=True))
            scribbles[row - 2 : row + 3, column - 2 : column + 3] = label
    options = {"name": "chelsea [strokes]", "opacity": 0.7}
    return [*photo, (scribbles, options, "labels")]


_STROKES = (
    (1, (12, 4), (70, 10)),
    (1, (6, 380), (14, 445)),
    (2, (60, 130), (60, 330)),
    (2, (90, 240), (230, 270)),
    (2, (150, 120), (240, 180)),
)
"""(label, (row, column) of the start, of the end)"""


def astronaut() -> list[LayerData]:
    """Portrait of Eileen Collins, 512×512 RGB (public domain, by NASA)."""
    return _photo("astronaut")


def _photo(name: str) -> list[LayerData]:
    from skimage import data

    return [(getattr(data, name)(), {"name": name}, "image")]
