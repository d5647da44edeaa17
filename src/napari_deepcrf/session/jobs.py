"""The work behind the session's use cases: generators that a worker iterates.

Every generator yields between two pieces of work, so that closing it cancels within one
network pass or one mean field; inside of them, checkpoints answer to an `interruptible` caller.
PyTorch and Numba release the interpreter lock.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from napari_deepcrf.session.crf_from_settings import learned_compatibility
from napari_deepcrf.session.events import (
    DivergenceReady,
    Event,
    ModelReady,
    Progress,
    ResultReady,
)
from napari_deepcrf.session.interruptible_network import interruptible_network
from napari_deepcrf.session.results import Identity, ResultBuilder
from napari_deepcrf.session.unary_cache import UnaryCache

if TYPE_CHECKING:
    from napari_deepcrf.models import DeepCRF
    from napari_deepcrf.session.images import ImageSource, ScoreSource


def load_model(name: str) -> Iterator[Event]:
    """Load a zoo name or a file; yields `ModelReady`."""
    yield Progress(f"Loading {name}")
    from napari_deepcrf.models import DeepCRF

    yield ModelReady(name, DeepCRF.load(name))


def save_model(model: DeepCRF, path: Path) -> Iterator[Event]:
    """Write a checkpoint whole, or leave what was there."""
    yield Progress(f"Saving {path.name}")
    model.save(path)


def segment_image(
    image: ImageSource, model: DeepCRF, device: str, identity: Identity
) -> Iterator[Event]:
    """Network, then mean field; yields progress and at last a `ResultReady` with its cache."""
    total = identity.settings.iterations + 3
    yield Progress(f"Reading {image.name}", 0, total)
    from napari_deepcrf.data.images import as_rgb
    from napari_deepcrf.inference import Predictor

    stored = image.read()
    pixels = as_rgb(stored)
    yield Progress("Running the network", 1, total)
    predictor = Predictor(model, device=device)
    with interruptible_network(model):
        scores = predictor.unary(stored)
    cache = UnaryCache(
        image_key=identity.image,
        unary_name=identity.unary,
        image=pixels if image.read_channels is None else image.read_channels(),
        scores=scores,
        class_names=tuple(model.class_names),
        device=str(predictor.device),
        compatibility=learned_compatibility(model),
    )
    yield from _mean_field(cache, identity, done=2, total=total)


def segment_scores(
    image: ImageSource, source: ScoreSource, device: str, identity: Identity
) -> Iterator[Event]:
    """Mean field over another tool's scores; events as from `segment_image`."""
    total = identity.settings.iterations + 2
    yield Progress(f"Reading {source.name}", 0, total)
    from napari_deepcrf.data.images import as_rgb
    from napari_deepcrf.device import resolve_device

    pixels = as_rgb(image.read())
    scores = source.read()
    if scores.shape[1:] != pixels.shape[:2]:
        raise ValueError(
            f"scores: expected (classes, {pixels.shape[0]}, {pixels.shape[1]}) as the image, "
            f"got shape {scores.shape}"
        )
    cache = UnaryCache(
        image_key=identity.image,
        unary_name=identity.unary,
        image=pixels if image.read_channels is None else image.read_channels(),
        scores=scores,
        class_names=source.class_names,
        device=str(resolve_device(device)),
    )
    yield from _mean_field(cache, identity, done=1, total=total)


def refine(cache: UnaryCache, identity: Identity) -> Iterator[Event]:
    """Mean field alone, on cached scores and the lattices that still fit."""
    yield from _mean_field(cache, identity, done=0, total=identity.settings.iterations + 1)


def measure(cache: UnaryCache, identity: Identity) -> Iterator[Event]:
    """The KL divergence of every update, for the curve; yields `DivergenceReady` at last."""
    values = []
    for value in cache.divergence(identity.settings):
        values.append(value)
        yield Progress("Measuring convergence", len(values), identity.settings.iterations + 1)
    yield DivergenceReady(identity, tuple(values))


def _mean_field(cache: UnaryCache, identity: Identity, *, done: int, total: int) -> Iterator[Event]:
    from napari_deepcrf.session.warm_up import compile_missing

    settings = identity.settings
    yield from compile_missing(
        len(cache.scores),
        cache.image.shape[2],
        cache.device,
        segmenting=settings.quality == "fast",
    )
    yield Progress(f"Mean field, {settings.iterations} updates", done, total)
    builder = ResultBuilder(cache.scores, settings.iterations, settings.keep, cache.rows)
    for t, marginals in enumerate(cache.trace(settings)):
        builder.add(marginals)
        yield Progress(f"Keeping update {t} of {settings.iterations}", done + 1 + t, total)
    yield ResultReady(builder.build(identity, cache.class_names), cache)
