"""`napari-deepcrf train`."""

import json
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from napari_deepcrf.cli.options import Device, Json, progress_bar

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from napari_deepcrf.data.samples import SegmentationDataset
    from napari_deepcrf.training.events import Event

Split = Annotated[str, typer.Option(help="A list in ImageSets/Segmentation.")]


def train(
    data: Annotated[Path, typer.Option(help="A VOC folder, or a folder of image/label pairs.")],
    out: Annotated[Path, typer.Option(help="Folder of the run; one that lies there is resumed.")],
    config: Annotated[str, typer.Option(help="paper, compact or scribbles.")] = "compact",
    split: Split = "train_aug",
    val_split: Split = "val",
    init: Annotated[
        str | None, typer.Option(help="Start: a model, a .safetensors file or imagenet.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the weights, the order and the crops.")] = 0,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Train the network alone first, then network and CRF jointly.

    DATA is a VOC folder, or one with images/NAME.* and labels/NAME.png, in which 0 is unlabelled
    and k + 1 stands for class k; all of those are trained on, without validation.

    The best model so far is OUT/model.safetensors, whether the run ends or is interrupted with
    Ctrl+C. The same command again goes on where it stopped. --json prints an event a line.
    """
    from napari_deepcrf.training import TrainingRun
    from napari_deepcrf.training.events import StepDone

    training, validation = _datasets(data, split, val_split)
    run = TrainingRun(
        config,
        training,
        validation=validation,
        init=init,
        folder=out,
        cache=out / "cache",
        seed=seed,
        device=device,
    )
    tasks: dict[str, TaskID] = {}
    with progress_bar() as progress, closing(run.events()) as events:
        for event in events:
            _show_progress(event, progress, tasks)
            if as_json:
                print(json.dumps({"event": type(event).__name__, **asdict(event)}, default=str))
            elif not isinstance(event, StepDone):
                print(_describe(event))
    if not as_json:
        print(out / "model.safetensors")


def _datasets(
    data: Path, split: str, val_split: str
) -> "tuple[SegmentationDataset, SegmentationDataset | None]":
    from napari_deepcrf.data.folder import FolderDataset
    from napari_deepcrf.data.voc import VOCDataset

    if (data / "images").is_dir():
        return FolderDataset(data), None
    return VOCDataset(data, split), VOCDataset(data, val_split)


def _show_progress(event: "Event", progress: "Progress", tasks: "dict[str, TaskID]") -> None:
    """One bar a stage, with the present loss."""
    from napari_deepcrf.training.events import StageStarted, StepDone

    if isinstance(event, StageStarted):
        tasks[event.stage] = progress.add_task(
            f"{event.stage} stage", total=event.iterations, completed=event.step
        )
    elif isinstance(event, StepDone):
        progress.update(
            tasks[event.stage],
            completed=event.step,
            description=f"{event.stage} stage, loss {event.loss:.4f}",
        )


def _describe(event: "Event") -> str:
    from napari_deepcrf.training.events import (
        CheckpointSaved,
        ReportWritten,
        StageStarted,
        Validated,
    )

    if isinstance(event, StageStarted):
        return f"{event.stage} stage: {event.iterations} steps, starting at step {event.step}"
    if isinstance(event, Validated):
        best = ", the best so far" if event.best else ""
        return f"{event.stage} step {event.step}: mean IoU {event.mean_iou:.4f}{best}"
    if isinstance(event, CheckpointSaved):
        return f"{event.stage} step {event.step}: saved {event.path}"
    if isinstance(event, ReportWritten):
        return f"report: {event.path}"
    return f"{event.stage} stage done at step {event.step}"
