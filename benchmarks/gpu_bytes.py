"""Bytes that the GPU's kernels must move, counted from the sizes of real lattices.

Every array counts once where it is read and once where it is written, as if caches were perfect:
what gathers and neighbours read again is not counted. The counts are lower bounds, and a time
made from them is a floor that nothing runs below, not a measurement.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from napari_deepcrf.lattice import Lattice

FLOAT = INT = 4
LONG = 8


@dataclass(frozen=True)
class Counts:
    """Sizes of one or several lattices over the same points."""

    points: int
    corners: int
    vertices: int
    steps: int
    """Blur launches: those of the lattice with the most axes."""

    @staticmethod
    def of(lattices: Sequence[Lattice]) -> Counts:
        return Counts(
            points=lattices[0].num_points,
            corners=sum(lattice.dim + 1 for lattice in lattices),
            vertices=sum(lattice.num_vertices for lattice in lattices),
            steps=max((lattice.dim + 1) * lattice.passes for lattice in lattices),
        )

    @property
    def entries(self) -> int:
        return self.points * self.corners


def filter_bytes(counts: Counts, channels: int) -> int:
    """One splat, blur and slice of (N, C) values."""
    values, z = counts.points * channels * FLOAT, counts.vertices * channels * FLOAT
    splat = values + counts.entries * (INT + FLOAT) + 4 * counts.vertices * INT + z
    blur = counts.steps * (2 * z + 2 * counts.vertices * INT)
    cut = z + counts.entries * (INT + FLOAT) + values
    return splat + blur + cut


def update_bytes(counts: Counts, channels: int) -> int:
    """One mean-field update: a filter whose slice also reads the scores."""
    return filter_bytes(counts, channels) + counts.points * channels * FLOAT


def backward_bytes(counts: Counts, channels: int) -> int:
    """One update backwards: a filter, the stored V, marginals, and gradients added to."""
    row = counts.points * channels * FLOAT
    gradients = 2 * 2 * counts.entries * FLOAT + 2 * row  # both weights and the scores, in place
    stored = counts.vertices * channels * FLOAT + 3 * row  # V, marginals, upstream, message
    return filter_bytes(counts, channels) + gradients + stored


def build_bytes(counts: Counts, dim: int, key_bytes: int = INT) -> int:
    """Embedding, one radix sort of (key, index) by bytes, vertex numbers, neighbours."""
    entries = counts.points * (dim + 1)
    embedding = counts.points * dim * FLOAT + entries * (key_bytes + FLOAT + 1)
    sorting = entries * 2 * key_bytes * (key_bytes + LONG)
    numbering = entries * (key_bytes + 4 * LONG)
    reading_order = entries * (3 * LONG + 3 * INT + FLOAT)
    neighbours = counts.vertices * (dim + 1) * 2 * (LONG + INT)
    return embedding + sorting + numbering + reading_order + neighbours
