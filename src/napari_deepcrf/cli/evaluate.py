"""`napari-deepcrf evaluate`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from napari_deepcrf.cli.options import Device, Json, Model, progress_bar

if TYPE_CHECKING:
    from napari_deepcrf.data.samples import SegmentationDataset


def evaluate(
    data: Annotated[Path, typer.Option(help="A VOC folder, or a folder of image/label pairs.")],
    split: Annotated[str, typer.Option(help="Name of a list of images.")] = "val",
    model: Model = "voc-compact",
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Measure a model's intersection over union, by class, at the images' own resolution.

    DATA is what `train` takes; of a folder of pairs without lists, or with SPLIT "all", all are
    measured.
    """
    from napari_deepcrf.data.folder import TRAIN, VALIDATION, FolderDataset
    from napari_deepcrf.data.problems import check_dataset
    from napari_deepcrf.data.voc import VOCDataset
    from napari_deepcrf.device import resolve_device
    from napari_deepcrf.models import DeepCRF
    from napari_deepcrf.training.evaluate import evaluate as measure

    dataset: SegmentationDataset
    if (data / "images").is_dir():
        lists = [data / f"{name}.txt" for name in (TRAIN, VALIDATION, split)]
        whole = split == "all" or not any(path.is_file() for path in lists)
        dataset = FolderDataset(data, None if whole else split)
    else:
        dataset = VOCDataset(data, split)
    check_dataset(dataset, str(data))
    deepcrf = DeepCRF.load(model).to(resolve_device(device))
    with progress_bar() as progress:
        task = progress.add_task("Evaluating", total=len(dataset))
        result = measure(
            deepcrf, dataset, on_progress=lambda done, _: progress.update(task, completed=done)
        )
    if as_json:
        figures = {
            name: {
                "mean": iou.mean,
                "classes": iou.as_dict(),
                "pixel_accuracy": iou.pixel_accuracy,
                "near_boundaries": {"mean": near.mean, "classes": near.as_dict()},
            }
            for name, iou, near in (
                ("unary", result.unary, result.unary_boundary),
                ("joint", result.joint, result.joint_boundary),
            )
        }
        print(json.dumps({"model": model, "split": split, "images": len(dataset), **figures}))
    else:
        print(f"{model} on the {len(dataset)} images of {split}, IoU in per cent\n")
        print(result.table())
