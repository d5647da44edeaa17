"""`napari-deepcrf evaluate`."""

import json
from typing import Annotated

import typer

from napari_deepcrf.cli.options import Data, Device, Json, Model, progress_bar


def evaluate(
    data: Data,
    split: Annotated[str, typer.Option(help="A list in ImageSets/Segmentation.")] = "val",
    model: Model = "voc-compact",
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Measure a model's intersection over union, by class, at the images' own resolution."""
    from napari_deepcrf.data.voc import VOCDataset
    from napari_deepcrf.device import resolve_device
    from napari_deepcrf.models import DeepCRF
    from napari_deepcrf.training.evaluate import evaluate as measure

    dataset = VOCDataset(data, split)
    deepcrf = DeepCRF.load(model).to(resolve_device(device))
    with progress_bar() as progress:
        task = progress.add_task("Evaluating", total=len(dataset))
        result = measure(
            deepcrf, dataset, on_progress=lambda done, _: progress.update(task, completed=done)
        )
    if as_json:
        figures = {
            name: {"mean": iou.mean, "classes": iou.as_dict(), "pixel_accuracy": iou.pixel_accuracy}
            for name, iou in (("unary", result.unary), ("joint", result.joint))
        }
        print(json.dumps({"model": model, "split": split, "images": len(dataset), **figures}))
    else:
        print(f"{model} on the {len(dataset)} images of {split}, IoU in per cent\n")
        print(result.table())
