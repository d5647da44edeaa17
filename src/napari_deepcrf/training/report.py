"""What a finished run leaves for people: tables, curves and galleries (tables 1, figures 4–6)."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from napari_deepcrf.atomic import atomic_write
from napari_deepcrf.data.samples import VOID, Sample, SegmentationDataset
from napari_deepcrf.data.voc import voc_palette
from napari_deepcrf.models.deepcrf import DeepCRF
from napari_deepcrf.training.batches import image_tensor
from napari_deepcrf.training.curves import write_curves
from napari_deepcrf.training.evaluate import Evaluation, evaluate
from napari_deepcrf.training.metrics import IoUMeter
from napari_deepcrf.training.records import EVENTS_FILE, read_events

GALLERY_SIZE = 6


def write_report(
    folder: Path,
    model: DeepCRF,
    datasets: dict[str, SegmentationDataset],
) -> Iterator[Path]:
    """Write the report of a run, yielding each file or table once it is there.

    ``datasets`` maps names, such as "train" and "validation", to samples; the galleries show the
    best and worst of the last.
    """
    for name, dataset in datasets.items():
        figures = evaluate(model, dataset)
        yield _write(folder / f"iou-{name}.md", figures.table() + "\n")
        yield _write(folder / f"iou-{name}.csv", _csv(figures))
    events = list(read_events(folder / EVENTS_FILE))
    if any(event["event"] == "Validated" for event in events):
        yield from write_curves(folder, events)
    if datasets:
        yield from _galleries(folder, model, list(datasets.values())[-1])


def _csv(figures: Evaluation) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["class", "unary", "joint"])
    unary, joint = figures.unary.as_dict(), figures.joint.as_dict()
    for name in figures.unary.class_names:
        writer.writerow([name, f"{unary[name]:.6f}", f"{joint[name]:.6f}"])
    writer.writerow(["mean", f"{figures.unary.mean:.6f}", f"{figures.joint.mean:.6f}"])
    return stream.getvalue()


def _galleries(folder: Path, model: DeepCRF, dataset: SegmentationDataset) -> Iterator[Path]:
    """Image, truth, unary and joint labels of the images with the best and worst joint IoU."""
    scores = []
    for index in range(len(dataset)):
        sample = dataset[index]
        _, joint = _predict(model, sample)
        meter = IoUMeter(model.class_names)
        meter.update(torch.from_numpy(joint), torch.tensor(sample.labels))
        scores.append(meter.compute().mean)
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


def _row(model: DeepCRF, sample: Sample, iou: float, side: int = 180, gap: int = 6) -> Image.Image:
    unary, joint = _predict(model, sample)
    palette = voc_palette()
    panels = [sample.image, *(palette[labels] for labels in (sample.labels, unary, joint))]
    height, width = sample.labels.shape
    factor = side / max(height, width)
    size = (round(width * factor), round(height * factor))
    row = Image.new("RGB", (4 * (side + gap), size[1] + 16), "white")
    for column, panel in enumerate(panels):
        method = Image.Resampling.BILINEAR if column == 0 else Image.Resampling.NEAREST
        row.paste(Image.fromarray(panel).resize(size, method), (column * (side + gap), 14))
    text = f"{sample.name}: image, truth, unary, joint (IoU {100 * iou:.0f} %)"
    ImageDraw.Draw(row).text((0, 1), text, fill="black")
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
