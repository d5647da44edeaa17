"""One model over many images: a folder, or the planes of a stack."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from napari_deepcrf.session.crf_from_settings import (
    dense_crf,
    fit_to_channels,
    learned_compatibility,
)
from napari_deepcrf.session.events import Event, Progress
from napari_deepcrf.session.interruptible_network import interruptible_network

if TYPE_CHECKING:
    from napari_deepcrf.inference.stack import StackLabels
    from napari_deepcrf.models import DeepCRF
    from napari_deepcrf.session.settings import CRFSettings

Array = npt.NDArray[Any]

NAMED_FAILURES = 3
"""How many bad images a message names, beside their number."""


@dataclass(frozen=True, eq=False)
class StackOpened:
    """The labels of a stack, 0 in every plane that is not done yet; they fill in place."""

    labels: Array
    """(*S, H, W) uint8."""
    stack: StackLabels | None = None
    """What fills them, None where all planes are done. Any thread may move its focus."""


@dataclass(frozen=True)
class PlaneDone:
    """A plane of the stack has its labels."""

    index: tuple[int, ...]


def segment_stack(
    open_stack: Callable[[], Any],
    model: DeepCRF,
    device: str,
    settings: CRFSettings,
    focus: Sequence[int],
    earlier: StackLabels | None = None,
) -> Iterator[Event]:
    """Segment a stack plane by plane, several at once, first the one in focus.

    ``open_stack`` returns what `StackLabels` takes; planes that an ``earlier`` run of the same
    stack, model and settings had done before it was cancelled are taken over. Yields `StackOpened`
    before any work, then a `PlaneDone` and a `Progress` for each plane. Raises ValueError at a
    plane that is no image.
    """
    yield Progress("Opening the stack")
    from napari_deepcrf.inference import Predictor
    from napari_deepcrf.inference.stack import StackLabels

    yield from compile_kernels(model, device, settings)
    predictor = Predictor(with_settings(model, settings), device=device)
    stack = StackLabels(open_stack(), predictor, earlier=earlier)
    stack.focus(focus)
    yield StackOpened(stack.labels, stack)
    with interruptible_network(model.network):
        for done, index in enumerate(stack.fill(), start=stack.num_done + 1):
            yield PlaneDone(index)
            yield Progress(f"Segmented {done} of {stack.num_planes} planes", done, stack.num_planes)


def segment_stack_as_volume(
    open_stack: Callable[[], Any],
    model: DeepCRF,
    device: str,
    settings: CRFSettings,
    planes_width: float,
) -> Iterator[Event]:
    """Segment a stack with one CRF over all its planes; `StackOpened` comes last, all done.

    Raises ValueError before any work where it takes too much memory, or the stack has two axes.
    """
    yield Progress("Opening the stack")
    from napari_deepcrf.inference import Predictor
    from napari_deepcrf.inference.volume import volume_steps

    predictor = Predictor(with_settings(model, settings), device=device)
    stack = open_stack()
    shape = stack.shape[:-1]
    along = tuple(slice(None) if n > 1 else 0 for n in shape[:-2])
    steps = volume_steps(stack[along], predictor, planes_width=planes_width)
    with interruptible_network(model.network):
        while True:
            try:
                done, total = next(steps)
            except StopIteration as end:
                labels = end.value
                break
            what = "One CRF over all planes" if done >= total - 1 else "The network, plane by plane"
            yield Progress(what, done, total)
    yield StackOpened(labels.reshape(shape))


def volume_bytes(shape: Sequence[int], classes: int) -> int:
    """What `segment_stack_as_volume` takes for a stack (*S, H, W), about."""
    from napari_deepcrf.inference import memory

    return memory.volume_bytes(tuple(shape), classes)


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
    from napari_deepcrf.batch.zarr_images import TilesDone

    images = find_images([folder])
    yield from compile_kernels(model, device, settings)
    tuned = with_settings(model, settings)
    done = 0
    failures: list[str] = []
    yield Progress(f"Segmenting {images[0].name}", 0, len(images))
    for event in segment_files(images, out, tuned, BatchOptions(device=device, kind=kind)):
        if isinstance(event, SummaryWritten):
            continue
        if isinstance(event, TilesDone):
            yield Progress(f"{event.image.name}: {event.plan}", event.done, event.total)
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


def compile_kernels(model: DeepCRF, device: str, settings: CRFSettings) -> Iterator[Event]:
    """What the CPU runs for so many classes; the kernels of one CRF over all planes are others."""
    from napari_deepcrf.device import resolve_device
    from napari_deepcrf.session.warm_up import CHANNELS, compile_missing

    place, fast = resolve_device(device).type, settings.quality == "fast"
    yield from compile_missing(len(model.class_names), CHANNELS, place, segmenting=fast)


def with_settings(model: DeepCRF, settings: CRFSettings) -> DeepCRF:
    """The model's own network before a CRF with these settings."""
    from napari_deepcrf.models import DeepCRF

    settings = fit_to_channels(settings, 3)
    learned = learned_compatibility(model) if settings.compatibility == "learned" else None
    crf = dense_crf(settings, channels=3, compatibility=learned)
    return DeepCRF(model.network, crf, model.class_names, name=model.name).eval()
