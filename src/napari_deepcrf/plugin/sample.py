"""Sample photos that come inside scikit-image: no download."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    LayerData = tuple[np.ndarray, dict[str, Any], str]


def cat() -> list[LayerData]:
    """Photo of the cat Chelsea, 300×451 RGB (CC0, by Stéfan van der Walt)."""
    return _photo("chelsea")


def astronaut() -> list[LayerData]:
    """Portrait of Eileen Collins, 512×512 RGB (public domain, by NASA)."""
    return _photo("astronaut")


def _photo(name: str) -> list[LayerData]:
    from skimage import data

    return [(getattr(data, name)(), {"name": name}, "image")]
