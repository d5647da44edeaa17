"""Foreground IoU of models trained on sparse scribbles, beside what else a user could run.

    python docs/results/scribbles/measure.py DATA [--set interactive] [--longer-side 400]

DATA holds ``interactive/`` (imgs, seg_GT, scribbles) and ``nuclei/`` (NAME_image.png,
NAME_label16.png, scribbles): 0 unlabelled, 1 background, 2 object. Every image is trained on alone,
with the same recipe and seed. One line of JSON an image goes to ``--out``; the table of all lines
there is printed at the end. The forest needs scikit-learn and pydensecrf2 (the extra ``bench``).
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

import napari_deepcrf as ndc
from napari_deepcrf.data.arrays import ArrayDataset
from napari_deepcrf.training.config import named_config
from napari_deepcrf.training.scribble_config import adapted_crf

COLUMNS = ("forest", "forest_crf", "crf_only", "unary", "joint", "random_joint")
EVIDENCE = 4.0
"""Nats in favour of a stroke's class where only the CRF is run on the strokes."""


@dataclass(frozen=True)
class Case:
    """One image of a set."""

    name: str
    image: NDArray[np.uint8]
    scribbles: NDArray[np.uint8]
    truth: NDArray[np.bool_]
    judged: NDArray[np.bool_]

    def reduced(self, longer_side: int) -> Case:
        """The same at a smaller size, labels by nearest neighbours."""
        factor = longer_side / max(self.truth.shape)
        if factor >= 1:
            return self
        size = (round(self.truth.shape[1] * factor), round(self.truth.shape[0] * factor))

        def labels(array: NDArray[np.uint8] | NDArray[np.bool_]) -> NDArray[np.uint8]:
            return np.asarray(Image.fromarray(array.astype(np.uint8)).resize(size, 0))

        return Case(
            self.name,
            np.asarray(Image.fromarray(self.image).resize(size, Image.Resampling.BOX)),
            labels(self.scribbles),
            labels(self.truth) > 0,
            labels(self.judged) > 0,
        )

    def iou(self, labels: NDArray[np.uint8]) -> float:
        """Of class 1 where the truth is known."""
        found, true = (labels == 1) & self.judged, self.truth & self.judged
        return float((found & true).sum() / max(1, (found | true).sum()))


def cases(data: Path, which: str) -> Iterator[Case]:
    """The images of a set, by name."""
    for path in sorted((data / which / "scribbles").glob("*.png")):
        scribbles = np.asarray(Image.open(path))
        if which == "interactive":
            image = Image.open(data / which / "imgs" / f"{path.stem}.jpg")
            labels = np.asarray(Image.open(data / which / "seg_GT" / f"{path.stem}.bmp"))
            truth, judged = labels == 255, (labels == 0) | (labels == 255)
        else:
            image = Image.open(data / which / f"{path.stem}_image.png")
            labels = np.asarray(Image.open(data / which / f"{path.stem}_label16.png"))
            truth, judged = labels > 0, np.ones(labels.shape, dtype=bool)
        yield Case(path.stem, np.asarray(image.convert("RGB")), scribbles, truth, judged)


def measure(case: Case, *, random_start: bool, forest: bool) -> dict[str, float]:
    """IoU of everything on one image, and the seconds (of wall and processor) of the training."""
    result: dict[str, float] = {}
    start = ndc.DeepCRF.load("voc-compact")
    wall, processor = time.perf_counter(), time.process_time()
    model = ndc.fit([(case.image, case.scribbles)], init=start, config="scribbles")
    result["seconds"] = time.perf_counter() - wall
    result["processor_seconds"] = time.process_time() - processor
    found = ndc.segment(case.image, model)
    result["unary"] = case.iou(found.unary.argmax(0))
    result["joint"] = case.iou(found.labels)
    result["crf_only"] = case.iou(crf_only(case))
    if random_start:
        torch.manual_seed(0)
        start.network.backbone.reset_parameters()
        model = ndc.fit([(case.image, case.scribbles)], init=start, config="scribbles")
        result["random_joint"] = case.iou(ndc.segment(case.image, model).labels)
    if forest:
        probabilities = forest_probabilities(case)
        result["forest"] = case.iou(probabilities.argmax(0))
        result["forest_crf"] = case.iou(pydensecrf_labels(case.image, probabilities))
    return result


@torch.inference_mode()
def crf_only(case: Case) -> NDArray[np.uint8]:
    """Mean field on the strokes as the only evidence, until they have spread."""
    config = named_config("scribbles").scribbles
    assert config is not None
    scores = torch.zeros(1, 2, *case.truth.shape)
    for label in (0, 1):
        scores[0, label][torch.from_numpy(case.scribbles == label + 1)] = EVIDENCE
    dataset = ArrayDataset([(case.image, case.scribbles)])
    crf = ndc.DenseCRF(adapted_crf(config.crf, dataset), iterations=50)
    pixels = torch.tensor(case.image).permute(2, 0, 1)[None].float()
    return crf(scores, pixels)[0].argmax(0).to(torch.uint8).numpy()


def forest_probabilities(case: Case) -> NDArray[np.float32]:
    """(2, H, W): 100 trees on scikit-image's multiscale features."""
    from skimage.feature import multiscale_basic_features
    from sklearn.ensemble import RandomForestClassifier

    features = multiscale_basic_features(case.image, channel_axis=-1)
    labelled = case.scribbles > 0
    forest = RandomForestClassifier(100, random_state=0, n_jobs=2)
    forest.fit(features[labelled], case.scribbles[labelled])
    flat = forest.predict_proba(features.reshape(-1, features.shape[-1]))
    return flat.T.reshape(2, *case.truth.shape).astype(np.float32)


def pydensecrf_labels(
    image: NDArray[np.uint8], probabilities: NDArray[np.float32]
) -> NDArray[np.uint8]:
    """What the usual CRF makes of them: θγ 3, w 3; θα 60, θβ 10, w 5; 5 updates."""
    import pydensecrf.densecrf as dcrf
    from pydensecrf.utils import unary_from_softmax

    height, width = image.shape[:2]
    crf = dcrf.DenseCRF2D(width, height, 2)
    crf.setUnaryEnergy(np.ascontiguousarray(unary_from_softmax(probabilities)))
    crf.addPairwiseGaussian(sxy=3, compat=3)
    crf.addPairwiseBilateral(sxy=60, srgb=10, rgbim=np.array(image), compat=5)
    labels = np.argmax(crf.inference(5), axis=0).astype(np.uint8)
    return labels.reshape(height, width)


def table(lines: list[dict[str, object]]) -> str:
    """Markdown: the mean of each set, then every image."""
    names = ("name", *COLUMNS, "seconds", "processor_seconds")
    rows = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    for which in sorted({str(line["set"]) for line in lines}):
        own = [line for line in lines if line["set"] == which]
        for label, group in [(f"**{which}** ({len(own)})", own)] + [
            (str(line["name"]), [line]) for line in own
        ]:
            cells = []
            for column in names[1:]:
                values = [float(str(line[column])) for line in group if column in line]
                cells.append(f"{np.mean(values):.3f}" if values else "")
            rows.append("| " + " | ".join([label, *cells]) + " |")
    return "\n".join(rows)


def main() -> None:
    """Measure what is not in ``--out`` yet, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--set", choices=["interactive", "nuclei"], action="append")
    parser.add_argument("--longer-side", type=int, default=10_000, help="reduce larger images")
    parser.add_argument("--forest", action="store_true")
    parser.add_argument("--random-start", action="store_true", help="also from random weights")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("measured.jsonl"))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    lines = []
    if arguments.out.is_file():
        lines = [json.loads(line) for line in arguments.out.read_text().splitlines()]
    done = {(line["set"], line["name"]) for line in lines}
    for which in arguments.set or ["interactive", "nuclei"]:
        for case in cases(arguments.data, which):
            if (which, case.name) in done:
                continue
            values = measure(
                case.reduced(arguments.longer_side),
                random_start=arguments.random_start,
                forest=arguments.forest,
            )
            lines.append({"set": which, "name": case.name, **values})
            with arguments.out.open("a") as file:
                file.write(json.dumps(lines[-1]) + "\n")
    print(table(lines))


if __name__ == "__main__":
    main()
