"""One model over many images: a folder, or the planes of a stack."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from napari_deepcrf.session.events import Event, Progress
from napari_deepcrf.session.refiner import dense_crf, learned_compatibility

if TYPE_CHECKING:
    from napari_deepcrf.models import DeepCRF
    from napari_deepcrf.session.images import ImageSource
    from napari_deepcrf.session.settings import CRFSettings

Array = npt.NDArray[Any]

NAMED_FAILURES = 3
"""How many bad images a message names, beside their number."""


@dataclass(frozen=True, eq=False)
class PlaneDone:
    """Final labels (H, W) of one image of the batch."""

    number: int
    source: ImageSource
    labels: Array


def segment_planes(
    sources: Sequence[ImageSource], model: DeepCRF, device: str, settings: CRFSettings
) -> Iterator[Event]:
    """Segment every source; yields `Progress` and one `PlaneDone` each."""
    from napari_deepcrf.inference import Predictor

    predictor = Predictor(with_settings(model, settings), device=device)
    for number, source in enumerate(sources):
        yield Progress(f"Segmenting {source.name}", number, len(sources))
        yield PlaneDone(number, source, predictor.segment(source.read()).labels)


def segment_folder(
    folder: Path,
    out: Path,
    model: DeepCRF,
    device: str,
    settings: CRFSettings,
    *,
    kind: str = "png",
) -> Iterator[Event]:
    """Segment every image file; labels get the same name, as VOC-palette PNG or of another kind.

    Results that are there already, of the same image, model and settings, are kept; an image that
    cannot be used stops nothing. Raises ValueError at the end, in one line, if there were any.
    """
    from napari_deepcrf.batch.images import find_images
    from napari_deepcrf.batch.run import (
        BatchOptions,
        ImageDone,
        ImageFailed,
        SummaryWritten,
        segment_files,
    )

    images = find_images([folder])
    tuned = with_settings(model, settings)
    done = 0
    failures: list[str] = []
    yield Progress(f"Segmenting {images[0].name}", 0, len(images))
    for event in segment_files(images, out, tuned, BatchOptions(device=device, kind=kind)):
        if isinstance(event, SummaryWritten):
            continue
        if isinstance(event, ImageFailed):
            failures.append(event.reason)
        done += isinstance(event, ImageDone)
        yield Progress(f"Segmented {event.image.name}", done + len(failures), len(images))
    if failures:
        raise ValueError(
            f"{len(failures)} of {len(images)} images failed, the others are in {out}: "
            f"{'; '.join(failures[:NAMED_FAILURES])}"
        )
    yield Progress(f"{done} label images written to {out}", done, done)


def with_settings(model: DeepCRF, settings: CRFSettings) -> DeepCRF:
    """The model's own network before a CRF with these settings."""
    from napari_deepcrf.models import DeepCRF

    learned = learned_compatibility(model) if settings.compatibility == "learned" else None
    crf = dense_crf(settings, channels=3, compatibility=learned)
    return DeepCRF(model.network, crf, model.class_names, name=model.name).eval()
