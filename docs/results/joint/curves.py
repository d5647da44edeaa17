"""Draw mean IoU over the iterations of both stages (the paper's figure 4): OUT.png RUN [RUN …]."""

import json
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

SEVEN = ("background", "cat", "cow", "dog", "horse", "sheep", "person")
TITLES = {
    "unary": "stage 1: network alone\n(even half of val, 320 pixels, output stride 16)",
    "joint": "stage 2: network and CRF\n(quarter of val, original size)",
}


def validations(events: Path) -> list[tuple[int, float]]:
    """Steps and mean IoU in per cent over the seven classes, from a stage's events."""
    lines = [json.loads(line) for line in events.read_text().splitlines()]
    return [
        (line["step"], 100 * sum(line["per_class"][name] for name in SEVEN) / len(SEVEN))
        for line in lines
        if "per_class" in line
    ]


def main(out: str, *runs: str) -> None:
    """One panel a stage, one line a run."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for axis, (stage, title) in zip(axes, TITLES.items(), strict=True):
        for run in map(Path, runs):
            steps, values = zip(*validations(run / stage / "events.jsonl"), strict=True)
            axis.plot(steps, values, marker="o", label=run.name)
        axis.set(title=title, xlabel="iteration", ylabel="mean IoU, 7 classes, %")
        axis.grid(alpha=0.3)
        axis.legend()
    figure.savefig(out, dpi=110)


if __name__ == "__main__":
    main(*sys.argv[1:])
