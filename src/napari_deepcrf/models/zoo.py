"""Models by name: packaged with napari-deepcrf, or downloaded once and checked by hash."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

_PACKAGED = Path(__file__).parent.parent / "weights"


@dataclass(frozen=True)
class ModelEntry:
    """A model that `DeepCRF.load` knows by name.

    ``file`` lies in the package's ``weights`` folder; a model without one is fetched from
    ``url`` into the user's cache and must have the given ``sha256``.
    """

    name: str
    description: str
    file: str | None = None
    url: str | None = None
    sha256: str | None = None

    @property
    def card(self) -> Path | None:
        """The model card beside a packaged model."""
        return None if self.file is None else (_PACKAGED / self.file).with_suffix(".md")


_MODELS = (
    ModelEntry(
        name="voc-compact",
        description="MobileNetV2 with a dense CRF, 21 PASCAL VOC classes",
        file="voc-compact.safetensors",
    ),
    ModelEntry(
        name="voc-vgg16-thin",
        description="VGG16 at a quarter width, from random weights, with a dense CRF, 21 classes",
        file="voc-vgg16-thin.safetensors",
    ),
)


def available_models() -> tuple[ModelEntry, ...]:
    """Every model that can be loaded by name."""
    return _MODELS


def is_known(name: str) -> bool:
    """Whether ``name`` is a model of the zoo."""
    return any(entry.name == name for entry in _MODELS)


def model_path(name: str) -> Path:
    """The local file of a named model, downloaded on first use; KeyError for unknown names."""
    entries = {entry.name: entry for entry in _MODELS}
    if name not in entries:
        raise KeyError(f"{name}: no such model, known are {', '.join(entries)}")
    return entry_path(entries[name])


def entry_path(entry: ModelEntry) -> Path:
    """The local file of a model, downloaded and hash-checked on first use."""
    if entry.file is not None:
        return _PACKAGED / entry.file
    from napari_deepcrf.download import fetch

    assert entry.url is not None
    assert entry.sha256 is not None
    return fetch(entry.url, digest=f"sha256:{entry.sha256}")
