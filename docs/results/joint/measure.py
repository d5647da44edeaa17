"""Measure the paper's claim on runs of voc-compact's training: VOCDEVKIT OUT.json RUN [RUN …].

Each RUN is the OUT of `../voc-compact/train.py` with another seed. On all 200 images of val and on
the 100 that served no choice: the network of stage 1 alone, the same with the CRF searched apart
(the piecewise training of the paper's reference [3]), and network and CRF trained jointly.
Figures that OUT.json already holds are not measured again; OUT.md gets the table.
"""

import json
import statistics
import sys
from pathlib import Path

import torch

from napari_deepcrf.data.samples import Sample
from napari_deepcrf.data.voc import VOCDataset
from napari_deepcrf.models import DeepCRF
from napari_deepcrf.training.batches import image_tensor
from napari_deepcrf.training.metrics import IoU, IoUMeter

SEVEN = ("background", "cat", "cow", "dog", "horse", "sheep", "person")
ROWS = {
    "unary": "stage 1, network alone",
    "piecewise": "the same + CRF searched apart",
    "joint_unary": "stage 2, its network alone",
    "joint": "stage 2, network + CRF",
}
COLUMNS = ("all 7", "all 21", "held back 7", "held back 21")


@torch.inference_mode()
def measure(model: DeepCRF, samples: VOCDataset) -> dict[str, dict[str, float]]:
    """Mean IoU of the network alone and with the CRF: all images, and the odd-numbered ones."""
    meters = {
        (part, images): IoUMeter(model.class_names)
        for part in ("unary", "joint")
        for images in ("all", "held back")
    }
    for index in range(len(samples)):
        sample: Sample = samples[index]
        image, truth = image_tensor(sample), torch.tensor(sample.labels)
        scores = model.unary(image)
        for part, labels in (
            ("unary", scores.argmax(1)),
            ("joint", model.crf(scores, image).argmax(1)),
        ):
            for images in ("all", "held back") if index % 2 else ("all",):
                meters[part, images].update(labels[0], truth)
    return {part: _means(part, meters) for part in ("unary", "joint")}


def _means(part: str, meters: dict[tuple[str, str], IoUMeter]) -> dict[str, float]:
    result = {}
    for images in ("all", "held back"):
        iou: IoU = meters[part, images].compute()
        result[f"{images} 7"] = iou.mean_of(SEVEN)
        result[f"{images} 21"] = iou.mean
    return result


def table(figures: dict[str, dict[str, dict[str, float]]]) -> str:
    """Mean ± standard deviation over the runs, in points, and the gains of stage 2."""
    lines = [f"| {len(figures)} seeds | " + " | ".join(COLUMNS) + " |", "|---|" + "---:|" * 4]
    for row, title in ROWS.items():
        cells = [_cell([run[row][column] for run in figures.values()]) for column in COLUMNS]
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    for base, title in (("unary", "joint − unary"), ("piecewise", "joint − piecewise")):
        cells = [
            _cell([run["joint"][column] - run[base][column] for run in figures.values()])
            for column in COLUMNS
        ]
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _cell(values: list[float]) -> str:
    points = [100 * value for value in values]
    spread = statistics.stdev(points) if len(points) > 1 else float("nan")
    return f"{statistics.mean(points):.1f} ± {spread:.1f}"


def main(devkit: str, out: str, *runs: str) -> None:
    """Measure what is missing, write figures and table."""
    path, val = Path(out), VOCDataset(devkit, "val")
    figures = json.loads(path.read_text()) if path.is_file() else {}
    for run in map(Path, runs):
        if run.name not in figures:
            apart = measure(DeepCRF.load(run / "piecewise.safetensors"), val)
            joint = measure(DeepCRF.load(run / "joint" / "voc-compact.safetensors"), val)
            figures[run.name] = {
                "unary": apart["unary"],
                "piecewise": apart["joint"],
                "joint_unary": joint["unary"],
                "joint": joint["joint"],
            }
            path.write_text(json.dumps(figures, indent=1))
            print(table(figures), flush=True)
    path.with_suffix(".md").write_text(table(figures))


if __name__ == "__main__":
    main(*sys.argv[1:])
