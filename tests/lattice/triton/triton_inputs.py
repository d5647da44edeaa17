"""Inputs that the Triton suites share: full size on a GPU, small and odd in the interpreter."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from triton import knobs

from napari_deepcrf.lattice import Lattice, torch_ops
from napari_deepcrf.lattice.scaled import ScaledLattice

INTERPRETED = bool(knobs.runtime.interpret)
DEVICE = torch.device("cpu" if INTERPRETED else "cuda")

QUALITIES = [{"ring": False, "passes": 1}, {"ring": True, "passes": 1}, {"ring": True, "passes": 2}]

# Sums of float32 products in another order: a few units in the last place of the largest term.
CLOSE = {"rtol": 2e-5, "atol": 2e-5}


def full(small: int, large: int) -> int:
    return small if INTERPRETED else large


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE)


def features_of(count: int, dim: int) -> Tensor:
    """Points close enough together to share vertices."""
    return random(count, dim) * (0.5 if INTERPRETED else 3.0)


def lattices_for(count: int, quality: dict[str, Any], *, images: int = 1) -> list[Lattice]:
    """A plain lattice and one of the given quality, over the same points."""
    plain = Lattice.build(features_of(count, 2), backend="triton", images=images)
    return [
        plain,
        Lattice.build(features_of(count, 3), backend="triton", images=images, **quality),
    ]


def mean_field_inputs(
    lattices: list[Lattice], labels: int = 3, mixing: str | None = None, own: bool = False
) -> dict[str, Tensor]:
    """Scores, factors, weights, µ and self weights; messages about as large as the scores."""
    count = lattices[0].num_points
    inputs = {"scores": random(count, labels)}
    for m, lattice in enumerate(lattices):
        ones = torch.ones(count, 1, device=DEVICE)
        blurred = torch_ops.blur(lattice, torch_ops.splat(lattice, ones), reverse=False)
        row_sum = lattice.alpha * torch_ops.slice(lattice, blurred).mean()
        inputs[f"weight{m}"] = lattice.weight.clone()
        inputs[f"pre{m}"] = random(count, seed=2 * m + 1).sigmoid()
        inputs[f"post{m}"] = random(count, seed=2 * m + 2).exp() / row_sum
    if mixing == "diagonal":
        inputs["compatibility"] = random(labels, seed=7).exp()
    if mixing == "full":
        table = random(labels, labels, seed=7)
        inputs["compatibility"] = table + table.T
    if own:
        inputs["self_weight"] = random(count, seed=8).sigmoid()
    return inputs


def scaled(lattices: list[Lattice], inputs: dict[str, Tensor]) -> list[ScaledLattice]:
    return [
        ScaledLattice(
            lattice, inputs[f"weight{m}"], inputs[f"pre{m}"], lattice.alpha * inputs[f"post{m}"]
        )
        for m, lattice in enumerate(lattices)
    ]
