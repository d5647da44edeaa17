"""Measure a model as issued: VOCDEVKIT [MODEL], by default the packaged voc-compact.

Mean IoU on VOC's val at original resolution (all images, and the odd-numbered ones, which served no
choice), the file's size, the seconds of a 500 × 375 photograph, and what it makes of scikit-image's
chelsea and astronaut.
"""

import runpy
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from skimage import data, transform

from napari_deepcrf.data.voc import VOCDataset
from napari_deepcrf.inference import Predictor
from napari_deepcrf.models.zoo import is_known, model_path

JOINT = runpy.run_path(str(Path(__file__).parents[1] / "joint" / "measure.py"))
REPEATS = 5
LEAST_SHARE = 0.001
"""Classes of fewer pixels are not printed."""


def seconds(work: Callable[[], object]) -> float:
    """Median of some runs, after one that is not counted."""
    durations = []
    for _ in range(REPEATS + 1):
        start = time.perf_counter()
        work()
        durations.append(time.perf_counter() - start)
    return statistics.median(durations[1:])


def main(devkit: str, model: str = "voc-compact") -> None:
    """Print everything, the quick figures first."""
    predictor = Predictor(model, device="cpu")
    path = model_path(model) if is_known(model) else Path(model)
    print(f"{path.name}: {path.stat().st_size / 1e6:.1f} MB")
    small = transform.resize(data.astronaut(), (375, 500), order=1, anti_aliasing=True)
    photo = np.round(255 * small).astype(np.uint8)
    network, whole = (seconds(lambda w=w: w(photo)) for w in (predictor.unary, predictor.segment))
    threads = torch.get_num_threads()
    print(f"500 × 375, {threads} threads: network {network:.3f} s, in all {whole:.3f} s")
    for name in ("chelsea", "astronaut"):
        labels = predictor.segment(getattr(data, name)()).labels
        shares = np.bincount(labels.ravel(), minlength=len(predictor.class_names)) / labels.size
        found = [
            f"{title} {100 * share:.1f} %"
            for title, share in zip(predictor.class_names, shares, strict=True)
            if share >= LEAST_SHARE
        ]
        print(f"{name}: {', '.join(found)}")
    figures = JOINT["measure"](predictor.model, VOCDataset(devkit, "val"))
    print("| mean IoU | " + " | ".join(JOINT["COLUMNS"]) + " |\n|---|" + "---:|" * 4)
    for part, title in (("unary", "its network alone"), ("joint", "network + CRF")):
        cells = [f"{100 * figures[part][column]:.1f}" for column in JOINT["COLUMNS"]]
        print(f"| {title} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main(*sys.argv[1:])
