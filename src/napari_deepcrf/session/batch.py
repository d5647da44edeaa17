"""One model over many images: a folder, or the planes of a stack."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_deepcrf.session.events import Event, Progress
from napari_deepcrf.session.refiner import UnaryCache, learned_compatibility

if TYPE_CHECKING:
    from napari_deepcrf.models import DeepCRF
    from napari_deepcrf.session.images import ImageSource
    from napari_deepcrf.session.settings import CRFSettings

Array = npt.NDArray[Any]

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")


@dataclass(frozen=True, eq=False)
class PlaneDone:
    """Final labels (H, W) of one image of the batch."""

    number: int
    source: ImageSource
    labels: Array


def images_in(folder: Path) -> list[Path]:
    """Image files of a folder, by name.

    Raises
    ------
    ValueError
        If there are none.
    """
    paths = sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES)
    if not paths:
        raise ValueError(f"folder: expected images ({', '.join(SUFFIXES)}), got none in {folder}")
    return paths


def segment_planes(
    sources: Sequence[ImageSource], model: DeepCRF, device: str, settings: CRFSettings
) -> Iterator[Event]:
    """Segment every source; yields `Progress` and one `PlaneDone` each."""
    for number, source in enumerate(sources):
        yield Progress(f"Segmenting {source.name}", number, len(sources))
        yield PlaneDone(number, source, final_labels(source.read(), model, device, settings))


def segment_folder(
    folder: Path, out: Path, model: DeepCRF, device: str, settings: CRFSettings
) -> Iterator[Event]:
    """Segment every image file; labels are written as VOC-palette PNG of the same name."""
    from napari_deepcrf.data.image_files import read_image, write_labels

    paths = images_in(folder)
    out.mkdir(parents=True, exist_ok=True)
    for number, path in enumerate(paths):
        yield Progress(f"Segmenting {path.name}", number, len(paths))
        labels = final_labels(read_image(path), model, device, settings)
        write_labels(out / f"{path.stem}.png", labels)
    yield Progress(f"{len(paths)} label images written to {out}", len(paths), len(paths))


def final_labels(image: Array, model: DeepCRF, device: str, settings: CRFSettings) -> Array:
    """(H, W) labels of one image with a model and CRF settings."""
    from napari_deepcrf.inference import Predictor, check_image

    pixels = check_image(image)
    predictor = Predictor(model, device=device)
    cache = UnaryCache(
        image_key=None,
        unary_name="",
        image=pixels,
        scores=predictor.unary(pixels),
        class_names=tuple(model.class_names),
        device=str(predictor.device),
        compatibility=learned_compatibility(model),
    )
    *_, last = cache.trace(settings)
    return np.asarray(last.max(dim=0).indices.cpu().numpy().astype(np.uint8))
