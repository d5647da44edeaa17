"""Layers of other tools, probabilities or labels, as scores for the CRF."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_deepcrf.plugin.images import Revisions, finest
from napari_deepcrf.session.images import (
    ScoreSource,
    scores_from_class_indices,
    scores_from_values,
)

if TYPE_CHECKING:
    from napari.layers import Image, Labels


def probability_source(
    layer: Image, class_names: tuple[str, ...], revisions: Revisions
) -> ScoreSource:
    """Scores of a layer whose first axis holds the classes."""
    data = finest(layer)
    count = data.shape[0]
    names = class_names if len(class_names) == count else _numbered(count)
    return ScoreSource(
        key=revisions.key(layer),
        name=layer.name,
        class_names=names,
        read=lambda: scores_from_values(np.asarray(data)),
    )


def label_source(
    layer: Labels, class_names: tuple[str, ...], confidence: float, revisions: Revisions
) -> ScoreSource:
    """Scores of a labels layer that is trusted to ``confidence``."""
    data = finest(layer)
    count = max(2, int(data.max()) + 1)
    names = class_names if len(class_names) == count else _numbered(count)
    return ScoreSource(
        key=(revisions.key(layer), confidence),
        name=layer.name,
        class_names=names,
        read=lambda: scores_from_class_indices(np.array(data), len(names), confidence),
    )


def _numbered(count: int) -> tuple[str, ...]:
    return ("background", *(f"class {k}" for k in range(1, count)))
