"""Live mode: the network's top layer fitted to scribbles on cached features, in a fraction of
a second, so that the result follows the strokes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_deepcrf.session.events import Event, Progress
from napari_deepcrf.session.refiner import UnaryCache

if TYPE_CHECKING:
    from torch import Tensor

    from napari_deepcrf.models import DeepCRF
    from napari_deepcrf.session.images import ImageSource
    from napari_deepcrf.session.results import Identity

Array = npt.NDArray[Any]

MAX_PIXELS_PER_CLASS = 1500
PENALTY = 1e-3
NEWTON_STEPS = 25


@dataclass(eq=False)
class FeatureCache:
    """The last hidden layer (F, h, w) for one image and model, and the image in 0–255."""

    image_key: object
    model_name: str
    image: Array
    features: Tensor
    refined: UnaryCache | None = None
    """Scores and lattices of the last fit: the lattices stay valid, the scores are replaced."""


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

    if np.unique(annotation[annotation > 0]).size < 2:
        raise ValueError("scribbles: expected strokes of two or more classes, got fewer")
    if cache is None or (cache.image_key, cache.model_name) != (image.key, model_name):
        yield Progress("Computing features")
        cache = compute_features(image, model, model_name)
    yield Progress("Fitting the top layer")
    scores = fit_scores(cache.features, annotation, len(class_names))
    refined = UnaryCache(
        image_key=identity.image,
        unary_name=identity.unary,
        image=cache.image,
        scores=scores,
        class_names=class_names,
    )
    if cache.refined is not None:
        refined.adopt_lattices(cache.refined)
    cache.refined = refined
    yield cache
    yield from jobs.refine(refined, identity)


def compute_features(image: ImageSource, model: DeepCRF, model_name: str) -> FeatureCache:
    """Run the network up to its last hidden layer."""
    import torch
    from torch.nn import functional as F

    from napari_deepcrf.inference import check_image

    pixels = check_image(image.read())
    network = model.network.eval()
    with torch.inference_mode():
        tensor = torch.from_numpy(pixels).permute(2, 0, 1)[None].to(network.mean.device)
        small = F.interpolate(
            tensor,
            size=network.network_size(*pixels.shape[:2]),
            mode="bilinear",
            align_corners=False,
            antialias=True,
        )
        features = network.backbone.features((small - network.mean) / network.std)[0].cpu()
    return FeatureCache(image.key, model_name, pixels, features)


def fit_scores(features: Tensor, annotation: Array, num_classes: int) -> Array:
    """Multinomial logistic regression on features at the annotated pixels.

    Features (F, h, w) stand for the whole (H, W) image; the returned (L, H, W) float32 scores
    are the fitted top layer's, enlarged bilinearly as the network enlarges its own. Classes
    without a stroke get a score far below the others.
    """
    import torch
    from torch.nn import functional as F

    height, width = annotation.shape
    rows, columns, classes = _sample(annotation)
    present = np.unique(classes)
    with torch.inference_mode(False), torch.enable_grad():
        x = _at(features.clone(), rows, columns, height, width)
        scale = x.std(dim=0).clamp_min(1e-3)
        x = x / scale
        target = torch.from_numpy(np.searchsorted(present, classes))
        counts = torch.bincount(target, minlength=len(present)).float()
        top = torch.nn.Linear(x.shape[1], len(present))
        torch.nn.init.zeros_(top.weight)
        torch.nn.init.zeros_(top.bias)
        optimizer = torch.optim.LBFGS(
            top.parameters(), max_iter=NEWTON_STEPS, line_search_fn="strong_wolfe"
        )

        def loss() -> Tensor:
            optimizer.zero_grad()
            value = F.cross_entropy(top(x), target, weight=1 / counts)
            value = value + PENALTY * top.weight.square().sum()
            value.backward()  # type: ignore[no-untyped-call]
            return value

        optimizer.step(loss)  # type: ignore[no-untyped-call]
    with torch.inference_mode():
        weight = (top.weight / scale)[:, :, None, None]
        coarse = F.conv2d(features[None], weight, top.bias)
        fine = F.interpolate(coarse, size=(height, width), mode="bilinear", align_corners=False)
        scores = torch.full((num_classes, height, width), float(fine.min()) - 10.0)
        scores[torch.from_numpy(present)] = fine[0]
    return np.asarray(scores.numpy())


def _sample(annotation: Array) -> tuple[Array, Array, Array]:
    """Rows, columns and classes of at most so many annotated pixels of every class."""
    rng = np.random.default_rng(0)
    rows, columns, classes = [], [], []
    for value in np.unique(annotation[annotation > 0]):
        r, c = np.nonzero(annotation == value)
        if len(r) > MAX_PIXELS_PER_CLASS:
            chosen = rng.choice(len(r), MAX_PIXELS_PER_CLASS, replace=False)
            r, c = r[chosen], c[chosen]
        rows.append(r)
        columns.append(c)
        classes.append(np.full(len(r), int(value) - 1))
    return np.concatenate(rows), np.concatenate(columns), np.concatenate(classes)


def _at(features: Tensor, rows: Array, columns: Array, height: int, width: int) -> Tensor:
    """(n, F): features at pixels of the full image, interpolated bilinearly."""
    import torch
    from torch.nn import functional as F

    y = torch.from_numpy((rows + 0.5) / height * 2 - 1).float()
    x = torch.from_numpy((columns + 0.5) / width * 2 - 1).float()
    grid = torch.stack([x, y], dim=1)[None, :, None]
    sampled = F.grid_sample(
        features[None], grid, mode="bilinear", padding_mode="border", align_corners=False
    )
    return sampled[0, :, :, 0].T
