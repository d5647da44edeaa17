"""Draws the layers that import-linter enforces: ``python docs/figures/layers.py [FILE]``.

The order comes from the contract in pyproject.toml, each package's line from its own docstring.
"""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.patches import FancyBboxPatch

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "napari_deepcrf"
WIDTH, HEIGHT, GAP = 10.0, 0.56, 0.14
OUTSIDE = {
    "plugin": "Qt, napari",
    "cli": "typer, rich",
    "lattice": "PyTorch, Numba, Triton",
    "crf": "PyTorch",
    "models": "PyTorch",
    "data": "Pillow, tifffile",
}
"""What else a layer is allowed to know, where that is the point of the layer."""


def main(path: Path) -> None:
    layers = contract()
    figure, axis = plt.subplots(figsize=(WIDTH, len(layers) * (HEIGHT + GAP)), layout="constrained")
    for row, packages in enumerate(reversed(layers)):
        bottom = row * (HEIGHT + GAP)
        width = (WIDTH - GAP * (len(packages) - 1)) / len(packages)
        for column, package in enumerate(packages):
            left = column * (width + GAP)
            box = FancyBboxPatch(
                (left, bottom),
                width,
                HEIGHT,
                boxstyle="round,pad=0,rounding_size=0.12",
                facecolor=plt.get_cmap("Blues")(0.12 + 0.06 * row),
                edgecolor="#334",
            )
            axis.add_patch(box)
            label(axis, package, left, bottom, width)
    axis.set_xlim(-0.1, WIDTH + 0.1)
    axis.set_ylim(-0.1, len(layers) * (HEIGHT + GAP))
    axis.set_axis_off()
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    plt.close(figure)


def label(axis: plt.Axes, package: str, left: float, bottom: float, width: float) -> None:
    """Name, what else it knows, and the first line of its docstring."""
    top, low = bottom + 0.68 * HEIGHT, bottom + 0.27 * HEIGHT
    right, known = left + width - 0.15, OUTSIDE.get(package, "")
    axis.text(left + 0.15, top, package, weight="bold", size=10, va="center")
    axis.text(right, top, known, size=8, va="center", ha="right", style="italic")
    axis.text(left + 0.15, low, purpose(package, int(15 * width)), size=8, va="center")


def contract() -> list[list[str]]:
    """Packages that may stand beside each other, highest layer first."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = settings["tool"]["importlinter"]["contracts"]
    (layers,) = (entry["layers"] for entry in contracts if entry["type"] == "layers")
    return [[name.strip().rpartition(".")[2] for name in layer.split("|")] for layer in layers]


def purpose(package: str, room: int) -> str:
    """The first sentence of the package's docstring, or what of it has room."""
    folder = PACKAGE / package / "__init__.py"
    source = folder if folder.is_file() else PACKAGE / f"{package}.py"
    text = ast.get_docstring(ast.parse(source.read_text(encoding="utf-8"))) or ""
    sentence = text.partition("\n\n")[0].replace("\n", " ")
    return sentence if len(sentence) <= room else re.split(r"[:,.]", sentence)[0] + "."


if __name__ == "__main__":
    plt.switch_backend("agg")
    plt.rcParams.update({"svg.hashsalt": "layers", "svg.fonttype": "none"})
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "images" / "layers.svg")
