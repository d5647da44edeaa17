"""Models by name: their weights and cards lie in the package."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

_WEIGHTS = Path(__file__).parent.parent / "weights"


@dataclass(frozen=True)
class ModelEntry:
    """A model that `DeepCRF.load` knows by name."""

    name: str
    """Also of its files: NAME.safetensors, and its card NAME.md."""
    description: str


_MODELS = (
    ModelEntry("voc-compact", "MobileNetV2 with a dense CRF, 21 PASCAL VOC classes"),
    ModelEntry(
        "voc-vgg16-thin",
        "VGG16 at a quarter width, from random weights, with a dense CRF, 21 classes",
    ),
)


def available_models() -> tuple[ModelEntry, ...]:
    """Every model that can be loaded by name."""
    return _MODELS


def is_known(name: str) -> bool:
    """Whether ``name`` is a model of the zoo."""
    return any(entry.name == name for entry in _MODELS)


def model_path(name: str) -> Path:
    """The checkpoint of a named model.

    Raises
    ------
    KeyError
        For an unknown name.
    """
    if not is_known(name):
        known = ", ".join(entry.name for entry in _MODELS)
        raise KeyError(f"{name}: no such model, known are {known}")
    return _WEIGHTS / f"{name}.safetensors"
