"""What a training changed: labels of one image by the old and the new model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_deepcrf.session.crf_from_settings import learned_compatibility
from napari_deepcrf.session.events import Event, Progress
from napari_deepcrf.session.interruptible_network import interruptible_network
from napari_deepcrf.session.unary_cache import UnaryCache

if TYPE_CHECKING:
    from napari_deepcrf.models import DeepCRF
    from napari_deepcrf.session.images import ImageSource
    from napari_deepcrf.session.settings import CRFSettings

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Comparison:
    """Labels (H, W) of an image before and after a training; classes are known by name."""

    image_key: object
    before: Array
    before_names: tuple[str, ...]
    after: Array
    after_names: tuple[str, ...]

    @cached_property
    def changed(self) -> Array:
        """(H, W) bool: pixels whose class has another name now."""
        names = sorted({*self.before_names, *self.after_names})
        old, new = (
            np.array([names.index(name) for name in own])[labels]
            for own, labels in ((self.before_names, self.before), (self.after_names, self.after))
        )
        return np.asarray(old != new)


def compare(
    image: ImageSource,
    old: tuple[DeepCRF, CRFSettings],
    new: tuple[DeepCRF, CRFSettings],
    device: str,
) -> Iterator[Event]:
    """Segment with both models, each with its own settings; yields a `Comparison` at last."""
    from napari_deepcrf.data.images import as_rgb
    from napari_deepcrf.inference import Predictor

    yield Progress("Comparing the models", 0, 3)
    stored = image.read()
    pixels = as_rgb(stored)
    labels = []
    for number, (model, settings) in enumerate((old, new), start=1):
        yield Progress("Comparing the models", number, 3)
        predictor = Predictor(model, device=device)
        with interruptible_network(model):
            scores = predictor.unary(stored)
        cache = UnaryCache(
            image_key=image.key,
            unary_name="",
            image=pixels,
            scores=scores,
            class_names=tuple(model.class_names),
            device=str(predictor.device),
            compatibility=learned_compatibility(model),
        )
        labels.append(cache.labels(settings))
    found = Comparison(
        image.key, labels[0], tuple(old[0].class_names), labels[1], tuple(new[0].class_names)
    )
    _ = found.changed  # here, where no window waits for it
    yield found
