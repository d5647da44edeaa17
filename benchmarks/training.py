"""Time the steps of both training stages, after checking the gradients.

    python benchmarks/training.py --out DIR     measures; writes DIR/training.json and training.md
    python benchmarks/training.py --quick       few steps

The network and batches of the recipe `compact` on photos of 500 × 375 pixels with 21 classes,
made-up labels, random weights. Gradients of the joint loss must be those of the plain PyTorch
operations. Times are medians of steps, the first of a stage left out.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from skimage import data, transform

from napari_deepcrf.crf import DenseCRF
from napari_deepcrf.data.arrays import ArrayDataset
from napari_deepcrf.data.voc import VOC_CLASSES
from napari_deepcrf.training import TrainingRun, named_config
from napari_deepcrf.training.events import StepDone
from report import publish

PHOTOS = ("astronaut", "chelsea", "coffee", "rocket")
HEIGHT, WIDTH = 375, 500
TOLERANCE = 1e-3


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    stage: str
    images: int
    seconds: float

    @property
    def images_per_second(self) -> float:
        return self.images / self.seconds


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, help="folder for training.json and training.md")
    parser.add_argument("--quick", action="store_true", help="few steps")
    arguments = parser.parse_args()
    error = gradient_error()
    if not error <= TOLERANCE:
        print(f"Nothing was timed: gradients are off by {error:.1e}", file=sys.stderr)
        return 1
    rows = list(measure(steps=3 if arguments.quick else 8))
    table = "| stage, recipe `compact` | images a step | seconds a step | images a second |\n"
    table += "|---|---|---|---|\n"
    for row in rows:
        table += f"| {row.stage} | {row.images} | {row.seconds:.3g} "
        table += f"| {row.images_per_second:.3g} |\n"
    report = {
        "device": "cuda" if torch.cuda.is_available() else "cpu",
        "threads": torch.get_num_threads(),
        "gradient_error": error,
        "rows": [asdict(row) | {"images_per_second": row.images_per_second} for row in rows],
    }
    publish(arguments.out, "training", report, table)
    return 0


def gradient_error() -> float:
    """Largest difference of a gradient from the reference's, relative to its largest value."""
    photo = data.astronaut()[40:88, 200:263]
    image = torch.from_numpy(photo.copy()).permute(2, 0, 1)[None].float()
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(1, 5, *photo.shape[:2], generator=generator)
    found = []
    for backend in ("torch", "auto"):
        crf, leaf = DenseCRF(backend=backend), scores.clone().requires_grad_()
        (-crf(leaf, image)[:, 0].log().mean()).backward()
        found.append([leaf.grad, *(parameter.grad for parameter in crf.parameters())])
    errors = [float((a - b).abs().max() / a.abs().max()) for a, b in zip(*found, strict=True)]
    return max(errors)


def measure(steps: int) -> Iterator[Row]:
    """Seconds a step, stage by stage, of one run."""
    recipe = named_config("compact")
    assert recipe.unary is not None
    assert recipe.joint is not None
    sizes = {"unary": recipe.unary.batch_size, "joint": recipe.joint.batch_size}
    recipe = replace(
        recipe,
        unary=replace(recipe.unary, iterations=steps + 1),
        joint=replace(recipe.joint, iterations=steps + 1),
    )
    durations: dict[str, list[float]] = {}
    for event in TrainingRun(recipe, dataset()).events():
        if isinstance(event, StepDone):
            durations.setdefault(event.stage, []).append(event.seconds)
    for stage, values in durations.items():
        yield Row(stage, sizes[stage], statistics.median(values[1:]))


def dataset() -> ArrayDataset:
    """Photos with the classes in stripes."""
    pairs = []
    for name in PHOTOS:
        photo = transform.resize(getattr(data, name)(), (HEIGHT, WIDTH), anti_aliasing=True)
        labels = np.repeat(np.arange(WIDTH)[None] * len(VOC_CLASSES) // WIDTH + 1, HEIGHT, axis=0)
        pairs.append((np.round(photo * 255).astype(np.uint8), labels))
    return ArrayDataset(pairs, VOC_CLASSES, names=PHOTOS)


if __name__ == "__main__":
    sys.exit(main())
