"""Watching a training: the labels of one image by the model as it is, every few seconds."""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from napari_deepcrf.data.images import as_rgb
from napari_deepcrf.models.deepcrf import DeepCRF
from napari_deepcrf.training.events import Preview, Stage, StageEvent, StepDone


@dataclass(frozen=True, kw_only=True, eq=False)
class PreviewImage:
    """The image that a run shows its progress on."""

    image: Any
    """What `as_rgb` takes."""
    key: object
    """Handed back with every `Preview`, to tell which image it is of."""
    every_s: float = 3.0
    """Least time between two previews, seconds."""


def with_previews(
    events: Generator[StageEvent], model: DeepCRF, image: PreviewImage
) -> Generator[StageEvent | Preview]:
    """The events of a training of ``model`` with a `Preview` behind a step whenever it is time."""
    pixels = torch.from_numpy(as_rgb(image.image)).permute(2, 0, 1)[None].contiguous()
    last = time.monotonic()
    with closing(events):
        for event in events:
            yield event
            if isinstance(event, StepDone) and time.monotonic() - last >= image.every_s:
                labels = _labels(model, pixels, event.stage)
                yield Preview(event.stage, event.step, image.key, labels)
                last = time.monotonic()


@torch.no_grad()
def _labels(model: DeepCRF, pixels: torch.Tensor, stage: Stage) -> np.ndarray[Any, Any]:
    """Of the network alone while it trains alone, else of network and CRF."""
    model.eval()
    pixels = pixels.to(next(model.parameters()).device)
    scores = model.unary(pixels) if stage == "unary" else model(pixels)
    return scores.argmax(1)[0].to(torch.uint8).cpu().numpy()
