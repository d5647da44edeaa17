"""What a finished run leaves for people: tables, curves and galleries (table 1, figures 4–6)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from napari_deepcrf.atomic import atomic_write
from napari_deepcrf.data.label_files import voc_palette
from napari_deepcrf.data.samples import VOID, Sample, SegmentationDataset
from napari_deepcrf.models.deepcrf import DeepCRF
from napari_deepcrf.training.batches import image_tensor
from napari_deepcrf.training.curves import write_curves
from napari_deepcrf.training.evaluate import evaluate
from napari_deepcrf.training.records import EVENTS_FILE, read_events

GALLERY_SIZE = 6
"""Images in a gallery."""

_SIDE, _GAP, _TEXT = 240, 8, 22
"""Pixels of a panel's longer side, between panels, and of the line of text above them."""


def write_report(
    folder: Path,
    model: DeepCRF,
    datasets: dict[str, SegmentationDataset],
) -> Iterator[Path]:
    """Write the report of a run, yielding each file or table once it is there.

    ``datasets`` maps names, such as "train" and "validation", to samples; the galleries show the
    best and worst of the last.
    """
    per_image: tuple[float, ...] = ()
    for name, dataset in datasets.items():
        figures = evaluate(model, dataset)
        per_image = figures.per_image
        yield _write(folder / f"iou-{name}.md", figures.table() + "\n")
        yield _write(folder / f"iou-{name}.csv", figures.csv())
    events = list(read_events(folder / EVENTS_FILE))
    if any(event["event"] == "Validated" for event in events):
        yield from write_curves(folder, events)
    if datasets:
        yield from _galleries(folder, model, list(datasets.values())[-1], per_image)


def _galleries(
    folder: Path, model: DeepCRF, dataset: SegmentationDataset, scores: Sequence[float]
) -> Iterator[Path]:
    """Image, truth, unary and joint labels of the images with the best and worst joint IoU."""
    order = sorted(range(len(scores)), key=scores.__getitem__)
    chosen = {"worst": order[:GALLERY_SIZE], "best": order[::-1][:GALLERY_SIZE]}
    for name, indices in chosen.items():
        rows = [_row(model, dataset[index], scores[index]) for index in indices]
        width = max(row.width for row in rows)
        sheet = Image.new("RGB", (width, sum(row.height for row in rows)), "white")
        top = 0
        for row in rows:
            sheet.paste(row, (0, top))
            top += row.height
        path = folder / f"gallery-{name}.png"
        with atomic_write(path) as file:
            sheet.save(file, format="PNG")
        yield path


def _row(model: DeepCRF, sample: Sample, iou: float) -> Image.Image:
    """Image, truth, unary and joint side by side under their names."""
    unary, joint = _predict(model, sample)
    palette = voc_palette()
    panels = [sample.image, *(palette[labels] for labels in (sample.labels, unary, joint))]
    height, width = sample.labels.shape
    factor = _SIDE / max(height, width)
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    row = Image.new("RGB", (4 * _SIDE + 5 * _GAP, size[1] + _TEXT + _GAP), "white")
    draw = ImageDraw.Draw(row)
    name = sample.name if len(sample.name) <= 32 else f"{sample.name[:31]}…"
    titles = (name, "truth", "unary", f"joint, mean IoU {100 * iou:.0f} %")
    for column, (title, panel) in enumerate(zip(titles, panels, strict=True)):
        left = _GAP + column * (_SIDE + _GAP)
        method = Image.Resampling.BILINEAR if column == 0 else Image.Resampling.NEAREST
        draw.text((left, _TEXT - 5), title, fill="black", anchor="ls", font_size=13)
        row.paste(Image.fromarray(panel).resize(size, method), (left, _TEXT))
    return row


@torch.inference_mode()
def _predict(model: DeepCRF, sample: Sample) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    image = image_tensor(sample).to(next(model.parameters()).device)
    scores = model.unary(image)
    both = torch.cat([scores.argmax(1), model.crf(scores, image).argmax(1)])
    unary, joint = both.to(torch.uint8).cpu().numpy()
    return np.where(sample.labels == VOID, VOID, unary), np.where(
        sample.labels == VOID, VOID, joint
    )


def _write(path: Path, text: str) -> Path:
    with atomic_write(path) as file:
        file.write(text.encode())
    return path
