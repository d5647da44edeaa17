"""The whole mean field on the CPU, fused, and its gradients [paper, eq. 4, 5, 7, 8]."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from napari_deepcrf.lattice.numba_backward import (
    INCOMING,
    GridPass,
    PartGradients,
    add_outer_products,
    backward_pass,
    write_planes,
)
from napari_deepcrf.lattice.numba_grid import GridTerm
from napari_deepcrf.lattice.numba_grid_backward import (
    GridGradients,
    backward_tasks,
    outgoing_factor,
)
from napari_deepcrf.lattice.numba_lattice import NumbaLattice
from napari_deepcrf.lattice.numba_passes import (
    MESSAGE,
    Image,
    Part,
    start_pass,
    update_pass,
)
from napari_deepcrf.lattice.numba_pool import run_all
from napari_deepcrf.lattice.numba_rows import LatticeBuffers, blur_tasks, gather_rows
from napari_deepcrf.lattice.numba_simd import (
    Width,
    aligned_empty,
    aligned_zeros,
    padded,
    width_for,
)

FloatArray = NDArray[np.float32]

FORWARD_SLOTS: Width = (0,) * 2
"""A row's vectors: the message it slices, the sum it is splatted."""
BACKWARD_SLOTS: Width = (0,) * 3
"""The message, the incoming gradient, the sum of the outgoing one."""


class LatticeTerm(NamedTuple):
    """A lattice with its weights (N, d+1) and factors (N,) before and after, alpha included."""

    lattice: NumbaLattice
    weight: FloatArray
    before: FloatArray
    after: FloatArray


class Gradients(NamedTuple):
    """What ``FusedMeanField.backward`` returns."""

    scores: FloatArray
    """(L, N)."""
    lattices: tuple[PartGradients, ...]
    compatibility: FloatArray
    """(P, P), empty for Potts."""
    grid: GridGradients | None


@dataclass
class _Sweep:
    """The state of a backward sweep."""

    gradients: Gradients
    logits: FloatArray
    """(N, P): the gradient of the scores so far."""
    buffers: list[LatticeBuffers]
    grid: GridPass
    """What does not change from update to update, and what the last one left."""
    incoming: bool = False
    """Whether an update has been taken back already."""


class FusedMeanField:
    """Mean field of a batch: ``run`` goes forward, ``backward`` after it.

    N pixels, L labels padded to P lanes, R rows and M vertices of a lattice.

    Parameters
    ----------
    scores
        (L, N) float32, C-contiguous.
    lattices
        At least one, all of N points.
    compatibility
        (L, L) float32, or None for Potts.
    grid
        The term outside the lattices, if there is one.
    keep_messages
        Keep what ``backward`` needs: messages at the vertices, and with a grid term the marginals
        of all updates, which would take long to compute again.
    """

    def __init__(
        self,
        scores: FloatArray,
        lattices: Sequence[LatticeTerm],
        compatibility: FloatArray | None,
        *,
        grid: GridTerm | None = None,
        keep_messages: bool = False,
    ) -> None:
        labels, num_points = scores.shape
        self.width = width_for(labels)
        lanes = padded(self.width)
        self.scores = scores
        self.lattices = lattices
        self.bounds = lattices[0].lattice.starts
        self.compatibility = np.zeros((0, lanes), np.float32)
        if compatibility is not None:
            self.compatibility = np.zeros((lanes, lanes), np.float32)
            self.compatibility[:labels, :labels] = compatibility
        self.logits = aligned_empty(num_points, lanes)
        self.buffers = [LatticeBuffers.of(m.lattice, FORWARD_SLOTS, lanes) for m in lattices]
        self.grid = grid
        self.image = self._final_image(None)
        self.base = self.logits  # what messages are added to
        if grid is not None:
            self.image = Image(aligned_empty(num_points, lanes), grid.pre)
            self.base = aligned_empty(num_points, lanes)
        self.keep_messages = keep_messages
        self.messages: list[list[FloatArray]] = []
        """Each lattice's blurred sums (M+1, P) that update 1, 2, ... read."""
        self.marginals: list[FloatArray] = []
        """With a grid term: pre ⊙ q (N, P) after update 0, 1, ..."""

    def run(
        self, count: int, *, trace: FloatArray | None = None, final: FloatArray | None = None
    ) -> None:
        """Run so many updates from softmax(scores) on.

        ``trace`` (count+1, L, N) receives the marginals after every update, ``final`` (N, P), which
        may be ``self.logits``, those after the last.
        """
        nothing = np.empty((count + 1, len(self.scores), 0), np.float32)
        planes = nothing if trace is None else trace
        image = self._next_image(final if count == 0 else None, last=count == 0)
        run_all(partial(self._start, c, image, planes[0]) for c in self._chunks())
        for t in range(1, count + 1):
            run_all([*self._grid_tasks(), *blur_tasks(self.buffers)])
            if self.keep_messages:
                self.messages.append([buffers.z[0].copy() for buffers in self.buffers])
            last = t == count
            image = self._next_image(final if last else None, last=last)
            run_all(partial(self._update, c, image, planes[t], last) for c in self._chunks())
        if final is not None and self.marginals and self.grid is not None:
            np.divide(self.marginals[-1], self.grid.pre[:, None], out=final)

    def _chunks(self) -> range:
        return range(len(self.bounds) - 1)

    def _next_image(self, final: FloatArray | None, *, last: bool) -> Image:
        """Where the marginals of the update at hand are written."""
        if self.grid is not None and self.keep_messages:
            self.image = Image(aligned_empty(*self.logits.shape), self.grid.pre)
            self.marginals.append(self.image.values)
            return self.image
        return self._final_image(final) if last else self.image

    def _final_image(self, final: FloatArray | None) -> Image:
        if final is None:
            return Image(self.logits[:0], np.empty(0, np.float32))
        return Image(final, np.ones(len(final), np.float32))

    def _start(self, c: int, image: Image, out: FloatArray) -> None:
        parts = self._parts(c, self.buffers)
        begin, end = self.bounds[c : c + 2]
        arrays = self.scores, self.logits, image, out
        start_pass(self.width, FORWARD_SLOTS, parts, begin, end, *arrays)

    def _update(self, c: int, image: Image, out: FloatArray, last: bool) -> None:
        parts = self._parts(c, self.buffers)
        for part, buffers in zip(parts, self.buffers, strict=True):
            vertex = buffers.lattice.of_chunk(buffers.lattice.row_vertex, c)
            source = buffers.z[0], self.compatibility
            gather_rows(self.width, vertex, *source, part.rows, MESSAGE)
        begin, end = self.bounds[c : c + 2]
        arrays = self.base, image, out
        update_pass(self.width, FORWARD_SLOTS, parts, begin, end, *arrays, last)

    def _grid_tasks(self) -> Iterable[Callable[[], None]]:
        if self.grid is None:
            return ()
        arrays = self.image.values, self.compatibility, self.logits, self.base
        return self.grid.tasks(self.width, *arrays)

    def _parts(self, c: int, buffers: Sequence[LatticeBuffers]) -> tuple[Part, ...]:
        return tuple(
            Part(
                term.lattice.row,
                term.weight,
                term.before,
                term.after,
                term.lattice.of_chunk(own.rows, c),
                (0,) * (term.lattice.dim + 1),
            )
            for term, own in zip(self.lattices, buffers, strict=True)
        )

    def backward(self, upstream: Sequence[FloatArray | None]) -> Gradients:
        """Gradients for those of the marginals after each update, (L, N) or None for zero."""
        lanes = padded(self.width)
        gradients = Gradients(
            np.empty_like(self.scores),
            tuple(PartGradients(*map(np.zeros_like, term[1:])) for term in self.lattices),
            np.zeros_like(self.compatibility),
            None if self.grid is None else GridGradients.zeros(self.grid, self.compatibility),
        )
        buffers = [LatticeBuffers.of(m.lattice, BACKWARD_SLOTS, lanes) for m in self.lattices]
        sweep = _Sweep(gradients, aligned_zeros(*self.logits.shape), buffers, self._grid_pass())
        nothing = np.empty((len(self.scores), 0), np.float32)
        for t in range(len(self.messages), -1, -1):
            arrived = upstream[t]
            self._backward_update(sweep, t, nothing if arrived is None else arrived)
        run_all(
            partial(
                write_planes,
                self.width,
                sweep.logits,
                gradients.scores,
                *self.bounds[c : c + 2],
            )
            for c in self._chunks()
        )
        return gradients

    def _backward_update(self, sweep: _Sweep, t: int, upstream: FloatArray) -> None:
        run_all(partial(self._backward_chunk, c, sweep, t, upstream) for c in self._chunks())
        sweep.incoming = True
        if t == 0:
            return
        mixed = len(self.compatibility) > 0
        sums = [np.empty_like(b.z[0]) if mixed else None for b in sweep.buffers]
        tasks = blur_tasks(sweep.buffers, reverse=True, keep=sums)
        run_all([*self._grid_backward_tasks(sweep, t), *tasks])
        for message, unblurred in zip(self.messages[t - 1], sums, strict=True):
            if unblurred is not None:
                out = sweep.gradients.compatibility
                add_outer_products(self.width, message[:-1], unblurred[:-1], out)

    def _grid_pass(self) -> GridPass:
        """The exchange with the grid term, before any update is taken back."""
        none = self.logits[:0]
        if self.grid is None:
            return GridPass(none, none[:, 0], none, none, none[:, 0], none, none)
        mixing = self.compatibility
        return GridPass(
            none,
            np.reciprocal(self.grid.pre),
            none,
            aligned_empty(*self.logits.shape),
            outgoing_factor(self.grid),
            aligned_empty(*self.logits.shape) if len(mixing) else none,
            mixing.T.copy() if len(mixing) else mixing,
        )

    def _grid_backward_tasks(self, sweep: _Sweep, t: int) -> Iterable[Callable[[], None]]:
        """What sends the gradient of update t's grid message back to the marginals before it."""
        if self.grid is None or sweep.gradients.grid is None:
            return ()
        if len(sweep.grid.incoming) == 0:
            incoming = aligned_empty(*self.logits.shape)
            sweep.grid = sweep.grid._replace(incoming=incoming)
        given = sweep.grid.outgoing, sweep.grid.logits_gradient, sweep.gradients.grid
        arrays = self.marginals[t - 1], *given, sweep.grid.incoming
        return backward_tasks(self.grid, self.width, *arrays)

    def _backward_chunk(self, c: int, sweep: _Sweep, t: int, upstream: FloatArray) -> None:
        parts = self._parts(c, sweep.buffers)
        mixing = self.compatibility
        transposed = mixing.T.copy() if len(mixing) else mixing
        for m, (part, buffers) in enumerate(zip(parts, sweep.buffers, strict=True)):
            vertex = buffers.lattice.of_chunk(buffers.lattice.row_vertex, c)
            if t > 0:
                gather_rows(self.width, vertex, self.messages[t - 1][m], mixing, part.rows, MESSAGE)
            if sweep.incoming:
                gather_rows(self.width, vertex, buffers.z[0], transposed, part.rows, INCOMING)
        pairs = tuple(zip(parts, sweep.gradients.lattices, strict=True))
        begin, end = self.bounds[c : c + 2]
        grid = sweep.grid
        if self.grid is not None:
            grid = grid._replace(marginals=self.marginals[t])
        arrays = self.logits, upstream, sweep.logits, grid
        flags = t > 0, sweep.incoming
        backward_pass(self.width, BACKWARD_SLOTS, pairs, begin, end, *arrays, *flags)
