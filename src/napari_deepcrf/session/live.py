"""Live mode: a finer top layer fitted to scribbles on cached maps, in a fraction of a second, so
that the result follows the strokes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_deepcrf.session.events import Event, Progress
from napari_deepcrf.session.interruptible_network import interruptible_network
from napari_deepcrf.session.unary_cache import UnaryCache

if TYPE_CHECKING:
    from torch import Tensor

    from napari_deepcrf.models import DeepCRF
    from napari_deepcrf.models.fine_head import FineHead
    from napari_deepcrf.session.images import ImageSource
    from napari_deepcrf.session.results import Identity

Array = npt.NDArray[Any]


@dataclass(eq=False)
class FeatureCache:
    """What the top layer sees of one image with one model, and the image in 0–255."""

    image_key: object
    model_name: str
    image: Array
    maps: list[Tensor]
    head: FineHead
    """Its features suit the image; its weights are of no account."""
    refined: UnaryCache | None = None
    """Scores and lattices of the last fit: the lattices stay valid, the scores are replaced."""

    def is_of(self, image: ImageSource, model_name: str) -> bool:
        """Whether it is what this model sees of this image."""
        return (self.image_key, self.model_name) == (image.key, model_name)


def prepare(image: ImageSource, model: DeepCRF, model_name: str) -> Iterator[Event]:
    """What the first fit waits for most, ahead of it: yields progress and a `FeatureCache`."""
    yield Progress("Computing features")
    yield compute_features(image, model, model_name)


def live(
    image: ImageSource,
    model: DeepCRF,
    annotation: Array,
    cache: FeatureCache | None,
    identity: Identity,
    model_name: str,
    class_names: tuple[str, ...],
) -> Iterator[Event]:
    """Fit the top layer to (H, W) scribbles (0 unlabelled, class + 1) and refine.

    Yields progress, then what `jobs.refine` yields. Raises ValueError for fewer than two
    annotated classes.
    """
    from napari_deepcrf.session import jobs

    rows = np.unique(annotation[annotation > 0]) - 1
    if rows.size < 2:
        raise ValueError("scribbles: expected strokes of two or more classes, got fewer")
    if cache is None or not cache.is_of(image, model_name):
        yield Progress("Computing features")
        cache = compute_features(image, model, model_name)
    yield Progress("Fitting the top layer")
    scores = fit_scores(cache.head, cache.maps, annotation)
    refined = UnaryCache(
        image_key=identity.image,
        unary_name=identity.unary,
        image=cache.image,
        scores=scores,
        class_names=class_names,
        rows=tuple(rows.tolist()),
    )
    if cache.refined is not None:
        refined.adopt_lattices(cache.refined)
    cache.refined = refined
    yield cache
    yield from jobs.refine(refined, identity)


def compute_features(image: ImageSource, model: DeepCRF, model_name: str) -> FeatureCache:
    """Run the network up to its last hidden layer, keeping its maps of every stride."""
    import torch

    from napari_deepcrf.data.images import as_rgb
    from napari_deepcrf.models.fine_head import FineUnaryNetwork

    pixels = as_rgb(image.read())
    known = model.network
    fine = FineUnaryNetwork(known.backbone, input_size=known.input_size).to(known.mean.device)
    with torch.inference_mode(), interruptible_network(fine):
        tensor = torch.from_numpy(pixels).permute(2, 0, 1)[None].to(known.mean.device)
        maps = [one.cpu() for one in fine.eval().maps(tensor)]
    head = fine.fine.cpu()
    head.calibrate([maps])
    return FeatureCache(image.key, model_name, pixels, maps, head)


def fit_scores(head: FineHead, maps: list[Tensor], annotation: Array) -> Array:
    """(L, H, W) float32 scores of a top layer fitted to the annotated pixels.

    The L classes are those with a stroke, ascending: whoever paints two of 21 waits for two.
    """
    import torch

    from napari_deepcrf.data.arrays import from_annotation
    from napari_deepcrf.training.scribble_fit import Strokes, centre_on_strokes, fit_to_strokes

    used, numbers = np.unique(annotation, return_inverse=True)
    painted = numbers.reshape(annotation.shape) + (used[0] != 0)  # 0 unlabelled, 1 … L
    fitted = head.for_classes(int(painted.max()))
    strokes = [Strokes.of(torch.from_numpy(from_annotation(painted)))]
    with torch.inference_mode():
        centre_on_strokes(fitted, [maps], strokes)
        fit_to_strokes(fitted, [maps], strokes)
        size = (annotation.shape[0], annotation.shape[1])
        return np.asarray(fitted(maps, size)[0].numpy())
