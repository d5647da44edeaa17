"""`napari-deepcrf train`."""

import json
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from napari_deepcrf.cli.options import Device, Json, progress_bar

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.progress import Progress, TaskID

    from napari_deepcrf.data.samples import SegmentationDataset
    from napari_deepcrf.training import TrainingRun
    from napari_deepcrf.training.config import TrainConfig
    from napari_deepcrf.training.events import Event

Split = Annotated[str, typer.Option(help="A list in ImageSets/Segmentation.")]
Strokes = Annotated[
    Path | None,
    typer.Option(
        help="A folder of ScribbleSup's NAME_scribble.txt: train on a VOC folder's strokes."
    ),
]
Start = Annotated[
    str | None,
    typer.Option(
        help="Start: a model, a .safetensors file or imagenet; by default voc-compact for "
        "scribbles, random weights for the others."
    ),
]
PREVIEW_EVERY_S = 10.0
PREVIEW_FILE = "preview.png"


def train(
    data: Annotated[Path, typer.Option(help="A VOC folder, or a folder of image/label pairs.")],
    out: Annotated[Path, typer.Option(help="Folder of the run; one that lies there is resumed.")],
    config: Annotated[str, typer.Option(help="paper, compact or scribbles.")] = "compact",
    split: Split = "train_aug",
    val_split: Split = "val",
    strokes: Strokes = None,
    init: Start = None,
    patches: Annotated[
        int | None, typer.Option(help="Train at native scale, on patches of so many pixels.")
    ] = None,
    micro_batch: Annotated[
        int | None, typer.Option(help="Most crops in memory at once; the batch stays as it is.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the weights, the order and the crops.")] = 0,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Train the network alone first, then network and CRF jointly.

    DATA is a VOC folder (`napari-deepcrf data` downloads one), or one with images/NAME.* and
    labels/NAME.png, in which 0 is unlabelled and k + 1 stands for class k. Lists train.txt and
    val.txt beside them split the pairs; without them there is no validation.

    The best model so far is OUT/model.safetensors, whether the run ends or is interrupted with
    Ctrl+C. The same command again goes on where it stopped; a run on scribbles starts again. --json
    prints an event a line. Under torchrun all processes share every batch.
    """
    from napari_deepcrf.training import TrainingRun, named_config
    from napari_deepcrf.training.distributed import leave_group
    from napari_deepcrf.training.loop import TrainingDivergedError
    from napari_deepcrf.training.preview import PreviewImage

    recipe = _adapted(named_config(config), patches, micro_batch)
    training, validation = _datasets(data, split, val_split, strokes)
    if init is None and recipe.scribbles is not None:
        init = "voc-compact"
    run = TrainingRun(
        recipe,
        training,
        validation=validation,
        init=init,
        folder=out,
        cache=out / "cache",
        seed=seed,
        device=device,
    )
    # Only now is the first sample known to be sound, and all that is wrong with others told.
    shown = (validation or training)[0]
    run.preview = PreviewImage(image=shown.image, key=shown.name, every_s=PREVIEW_EVERY_S)
    try:
        _follow(run, out, as_json)
    except TrainingDivergedError as error:
        raise ValueError(str(error)) from error
    finally:
        leave_group()


def _follow(run: "TrainingRun", out: Path, as_json: bool) -> None:
    """Train, and let the first process tell and show what happens."""
    from napari_deepcrf.data.label_files import write_labels
    from napari_deepcrf.training.distributed import rank
    from napari_deepcrf.training.events import Preview, event_record

    tasks: dict[str, TaskID] = {}
    with progress_bar() as progress, closing(run.events()) as events:
        for event in events:
            if rank() > 0:
                continue
            _show_progress(event, progress, tasks)
            if isinstance(event, Preview):
                write_labels(out / PREVIEW_FILE, event.labels)
            if as_json:
                print(json.dumps(event_record(event)))
            elif text := _describe(event, out):
                print(text)
    if not as_json and rank() == 0:
        print(out / "model.safetensors")


def _adapted(recipe: "TrainConfig", patches: int | None, micro_batch: int | None) -> "TrainConfig":
    if patches is not None:
        recipe = recipe.on_patches(patches)
    if micro_batch is not None and recipe.unary is not None:
        recipe = replace(recipe, unary=replace(recipe.unary, micro_batch=micro_batch))
    return recipe


def _datasets(
    data: Path, split: str, val_split: str, strokes: Path | None
) -> "tuple[SegmentationDataset, SegmentationDataset | None]":
    """Training and validation data; what is wrong with either is told together."""
    from napari_deepcrf.data.folder import TRAIN, VALIDATION, FolderDataset
    from napari_deepcrf.data.problems import check_dataset, collecting
    from napari_deepcrf.data.samples import DatasetError
    from napari_deepcrf.data.scribbles import StrokesDataset
    from napari_deepcrf.data.voc import VOCDataset

    found: list[SegmentationDataset] = []
    problems: list[str] = []
    read: tuple[Callable[[], SegmentationDataset], Callable[[], SegmentationDataset]]
    if (data / "images").is_dir():
        if strokes is not None:
            raise ValueError(f"strokes: expected a VOC folder, got one of pairs, {data}")
        if not (data / f"{VALIDATION}.txt").is_file():
            return FolderDataset(data), None
        read = (lambda: FolderDataset(data, TRAIN), lambda: FolderDataset(data, VALIDATION))
    elif strokes is not None:
        read = (lambda: StrokesDataset(data, split, strokes), lambda: VOCDataset(data, val_split))
    else:
        read = (lambda: VOCDataset(data, split), lambda: VOCDataset(data, val_split))
    for dataset in read:
        with collecting(problems):
            found.append(dataset())
    if problems:
        for sound in found:
            with collecting(problems):
                check_dataset(sound)
        raise DatasetError(str(data), list(dict.fromkeys(problems)))
    training, validation = found
    return training, validation


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


def _describe(event: "Event", out: Path) -> str:
    """A line on an event. Steps have the bar."""
    from napari_deepcrf.training import events

    match event:
        case events.StageStarted():
            return f"{event.stage} stage: {event.iterations} steps, starting at step {event.step}"
        case events.Validated():
            best = ", the best so far" if event.best else ""
            train = event.train_mean_iou
            also = "" if train is None else f" ({train:.4f} on training images)"
            return f"{event.stage} step {event.step}: mean IoU {event.mean_iou:.4f}{also}{best}"
        case events.CheckpointSaved():
            return f"{event.stage} step {event.step}: saved {event.path}"
        case events.Preview():
            return f"{event.stage} step {event.step}: {event.key} in {out / PREVIEW_FILE}"
        case events.ReportWritten():
            return f"report: {event.path}"
        case events.Finished():
            return f"{event.stage} stage done at step {event.step}"
        case _:
            return ""
