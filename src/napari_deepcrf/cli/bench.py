"""`napari-deepcrf bench`: how long things take on this machine."""

import json
import statistics
import time
from collections.abc import Callable
from typing import Annotated

import typer

from napari_deepcrf.cli.options import Device, Json, Model, progress_bar

HEIGHT, WIDTH = 375, 500


def bench(
    model: Model = "voc-compact",
    device: Device = "auto",
    repeats: Annotated[int, typer.Option(help="Runs of each part; the median counts.", min=1)] = 5,
    as_json: Json = False,
) -> None:
    """Time the parts of a segmentation on a 500 × 375 photo, after a first run that is not counted.

    The figures are medians in seconds; what compares them with other programs is in benchmarks/.
    """
    import numpy as np
    import torch
    from skimage import data, transform

    from napari_deepcrf.inference import Predictor

    photo = transform.resize(data.astronaut(), (HEIGHT, WIDTH), order=1, anti_aliasing=True)
    image = np.round(photo * 255).astype(np.uint8)
    predictor = Predictor(model, device=device)
    scores = torch.from_numpy(predictor.unary(image))[None].to(predictor.device)
    tensor = torch.from_numpy(image).permute(2, 0, 1)[None].float().to(predictor.device)
    crf = predictor.model.crf

    def update_labels() -> None:
        crf(scores, tensor, prepared=prepared)

    with torch.inference_mode():
        prepared = crf.prepare(tensor)
        parts: dict[str, Callable[[], object]] = {
            "network": lambda: predictor.unary(image),
            "lattices": lambda: crf.prepare(tensor),
            f"{crf.iterations} updates": update_labels,
            "whole segmentation": lambda: predictor.segment(image),
        }
        with progress_bar() as progress:
            seconds = {
                name: _median_seconds(part, repeats)
                for name, part in progress.track(list(parts.items()), description="Timing")
            }

    where = {"device": str(predictor.device), "threads": torch.get_num_threads()}
    if as_json:
        print(json.dumps({"model": model, "classes": scores.shape[1], **where, "seconds": seconds}))
        return
    print(f"{model}, {scores.shape[1]} classes, {WIDTH} × {HEIGHT}, {where['device']}, ", end="")
    print(f"{where['threads']} threads, median of {repeats}")
    for name, value in seconds.items():
        print(f"{name:20} {value:7.3f} s")


def _median_seconds(work: Callable[[], object], repeats: int) -> float:
    """The median duration of `work`, GPU work included, after one run that warms caches."""
    import torch

    durations = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        durations.append(time.perf_counter() - start)
    return statistics.median(durations[1:])
