"""The inputs of a mean field at fixed addresses, where a CUDA graph can find them again."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
from torch import Tensor

from napari_deepcrf.lattice.triton_join import JoinedLattices
from napari_deepcrf.lattice.triton_updates import Potentials

LEAST_ROOM = 64
"""Vertices, pieces or split vertices that there is room for at the least."""
MOST_WASTE = 4
"""How many times larger than needed room may be: every idle program of a graph costs time."""


@dataclass(frozen=True)
class Sizes:
    """How many vertices, pieces and split vertices there are, or there is room for."""

    vertices: int
    pieces: int
    splits: int

    @staticmethod
    def of(joined: JoinedLattices) -> Sizes:
        """Those that there are."""
        return Sizes(
            joined.neighbours.shape[1], joined.piece_vertex.shape[0], joined.split_vertex.shape[0]
        )

    def room(self) -> Sizes:
        """Each rounded up to a power of two, so that a slider's small moves keep the buffers."""
        return Sizes(*(max(triton.next_power_of_2(n), LEAST_ROOM) for n in self._counts()))

    def suit(self, room: Sizes) -> bool:
        """Whether there is room for these, and not far too much: idle programs cost time."""
        pairs = zip(self._counts(), room._counts(), strict=True)
        return all(n <= most <= MOST_WASTE * max(n, LEAST_ROOM) for n, most in pairs)

    def _counts(self) -> tuple[int, int, int]:
        return self.vertices, self.pieces, self.splits


class MeanFieldBuffers:
    """Joined lattices and potentials that later ones of nearly the same sizes can overwrite."""

    def __init__(self, joined: JoinedLattices, numbers: Potentials) -> None:
        self._room = room = Sizes.of(joined).room()
        self._fixed = fixed_sizes(joined, numbers)
        new = joined.vertex.new_full
        self.joined = JoinedLattices(
            vertex=torch.empty_like(joined.vertex),
            splat_position=torch.empty_like(joined.splat_position),
            splat_point=torch.empty_like(joined.splat_point),
            row_start=new((room.vertices + 1,), 0),
            piece_row=new((room.vertices + 1,), 0),
            piece_vertex=new((room.pieces,), -1),
            split_vertex=new((room.splits,), -1),
            neighbours=new((joined.neighbours.shape[0], room.vertices, 2), -1),
            taps=joined.taps,
        )
        self.numbers = Potentials(
            scores=torch.empty_like(numbers.scores),
            splat_weight=torch.empty_like(numbers.splat_weight),
            slice_weight=torch.empty_like(numbers.slice_weight),
            compatibility=_empty_like(numbers.compatibility),
            self_weight=_empty_like(numbers.self_weight),
        )

    def fit(self, joined: JoinedLattices, numbers: Potentials) -> bool:
        """Whether ``load`` can take these."""
        same = joined is self.joined or Sizes.of(joined).suit(self._room)
        return same and fixed_sizes(joined, numbers) == self._fixed

    def load_lattices(self, joined: JoinedLattices) -> None:
        """Overwrite the lattices; what `fit` takes. Rows past the last vertex are never read."""
        own, sizes = self.joined, Sizes.of(joined)
        own.vertex.copy_(joined.vertex)
        own.splat_position.copy_(joined.splat_position)
        own.splat_point.copy_(joined.splat_point)
        own.row_start[: sizes.vertices + 1].copy_(joined.row_start)
        own.piece_row[: sizes.vertices + 1].copy_(joined.piece_row)
        own.neighbours[:, : sizes.vertices].copy_(joined.neighbours)
        for target, source in (
            (own.piece_vertex, joined.piece_vertex),
            (own.split_vertex, joined.split_vertex),
        ):
            target[: source.shape[0]].copy_(source)
            target[source.shape[0] :].fill_(-1)

    def load_potentials(self, numbers: Potentials) -> None:
        """Overwrite scores, weights, µ and self weights; what `fit` takes."""
        own = self.numbers
        own.scores.copy_(numbers.scores)
        own.splat_weight.copy_(numbers.splat_weight)
        own.slice_weight.copy_(numbers.slice_weight)
        if own.compatibility is not None and numbers.compatibility is not None:
            own.compatibility.copy_(numbers.compatibility)
        if own.self_weight is not None and numbers.self_weight is not None:
            own.self_weight.copy_(numbers.self_weight)


def fixed_sizes(joined: JoinedLattices, numbers: Potentials) -> tuple[object, ...]:
    """What buffers, and graphs over them, cannot change."""
    optional = (numbers.compatibility, numbers.self_weight)
    return (
        joined.vertex.device,
        joined.vertex.shape,
        joined.taps,
        numbers.scores.shape,
        *(None if tensor is None else tensor.shape for tensor in optional),
    )


def _empty_like(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else torch.empty_like(tensor)
