"""The whole mean field on the CPU, fused, and its gradients [paper, eq. 4, 5, 7, 8]."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from napari_deepcrf.lattice.numba_backward import (
    INCOMING,
    add_outer_products,
    backward_pass,
    write_planes,
)
from napari_deepcrf.lattice.numba_dense import DenseTerm
from napari_deepcrf.lattice.numba_layout import Layout
from napari_deepcrf.lattice.numba_passes import (
    MESSAGE,
    Chunk,
    Image,
    Shape,
    blur_axis,
    gather_rows,
    start_pass,
    sum_rows,
    update_pass,
)
from napari_deepcrf.lattice.numba_pool import run_all
from napari_deepcrf.lattice.numba_simd import (
    BLOCK,
    Width,
    aligned_empty,
    aligned_zeros,
    padded,
    width_for,
)

FloatArray = NDArray[np.float32]


class Gradients(NamedTuple):
    """What ``FusedMeanField.backward`` returns, shaped like its arguments."""

    scores: FloatArray
    slice_weight: FloatArray
    splat_weight: FloatArray
    compatibility: FloatArray
    """(P, P), empty for Potts."""


@dataclass
class _Sweep:
    """The state of a backward sweep."""

    gradients: Gradients
    logits: FloatArray
    """(N, P): the gradient of the scores so far."""
    rows: FloatArray
    """(R, 3, P): messages, incoming gradients, sums of outgoing ones."""
    incoming: bool = False
    """Whether an update has been taken back already."""


class FusedMeanField:
    """Mean field of one image: ``updates`` runs forward, ``backward`` after it.

    N pixels, L labels padded to P lanes, K vertices a pixel over all lattices, M vertices in all.

    Parameters
    ----------
    layout
        The lattices of the kernels.
    scores
        (L, N) float32, C-contiguous.
    slice_weight, splat_weight
        (N, K) float32: barycentric weights times the factors after and before filtering, kernel
        weight and alpha included.
    compatibility
        (L, L) float32, or None for Potts.
    dense
        A term outside the lattices; ``backward`` cannot take it.
    keep_messages
        Keep what ``backward`` needs.
    """

    def __init__(
        self,
        layout: Layout,
        scores: FloatArray,
        slice_weight: FloatArray,
        splat_weight: FloatArray,
        compatibility: FloatArray | None,
        *,
        dense: DenseTerm | None = None,
        keep_messages: bool = False,
    ) -> None:
        labels, num_points = scores.shape
        width = width_for(labels)
        lanes = padded(width)
        self.layout = layout
        self.scores = scores
        self.weights = slice_weight, splat_weight
        self.shape = Shape(width, (0,) * layout.row.shape[1], (0,) * 2)
        self.compatibility = np.zeros((0, lanes), np.float32)
        if compatibility is not None:
            self.compatibility = np.zeros((lanes, lanes), np.float32)
            self.compatibility[:labels, :labels] = compatibility
        self.logits = aligned_empty(num_points, lanes)
        self.rows = aligned_empty(len(layout.vertex), 2, lanes)
        self.z = [aligned_zeros(layout.vertex_start[-1] + 1, lanes) for _ in range(2)]
        self.dense = dense
        self.image = Image(np.empty((0, lanes), np.float32), np.empty(0, np.float32))
        self.base = self.logits
        """What messages are added to: (N, P)."""
        if dense is not None:
            self.image = Image(aligned_empty(num_points, lanes), dense.pre)
            self.base = aligned_empty(num_points, lanes)
        self.keep_messages = keep_messages
        self.messages: list[FloatArray] = []
        """Blurred sums (M+1, P) that update 1, 2, ... read."""

    def updates(self, out: Sequence[FloatArray | None]) -> Iterator[int]:
        """Run len(out) - 1 updates from softmax(scores) on; yields the number of each when done.

        ``out[t]`` (L, N), unless None, receives the marginals after update t.
        """
        last = len(out) - 1
        chunks = range(self.layout.num_chunks)
        run_all(partial(self._start, c, self._or_nothing(out[0])) for c in chunks)
        yield 0
        for t in range(1, last + 1):
            run_all([*self._dense_tasks(), *blur_tasks(self.layout, self.rows, self.z)])
            if self.keep_messages:
                self.messages.append(self.z[0].copy())
            run_all(partial(self._update, c, self._or_nothing(out[t]), t == last) for c in chunks)
            yield t

    def _start(self, c: int, out: FloatArray) -> None:
        chunk = self._chunk(c, self.rows)
        start_pass(self.shape, chunk, self.scores, self.logits, self.image, out)

    def _update(self, c: int, out: FloatArray, last: bool) -> None:
        chunk = self._chunk(c, self.rows)
        vertex = self.layout.of_chunk(self.layout.vertex, c)
        gather_rows(self.shape.width, vertex, self.z[0], self.compatibility, chunk.rows, MESSAGE)
        update_pass(self.shape, chunk, self.base, self.image, out, last)

    def _dense_tasks(self) -> Iterable[Callable[[], None]]:
        if self.dense is None:
            return ()
        arrays = self.image.values, self.compatibility, self.logits, self.base
        return self.dense.tasks(self.shape.width, *arrays)

    def _chunk(self, c: int, rows: FloatArray) -> Chunk:
        rows = self.layout.of_chunk(rows, c)
        return Chunk(self.layout.row, *self.weights, rows, *self.layout.pixel_start[c : c + 2])

    def _or_nothing(self, planes: FloatArray | None) -> FloatArray:
        return np.empty((len(self.scores), 0), np.float32) if planes is None else planes

    def backward(self, upstream: Sequence[FloatArray | None]) -> Gradients:
        """Gradients for those of the marginals after each update, (L, N) or None for zero."""
        layout, lanes = self.layout, padded(self.shape.width)
        sweep = _Sweep(
            gradients=Gradients(
                np.empty_like(self.scores),
                np.zeros_like(self.weights[0]),
                np.zeros_like(self.weights[1]),
                np.zeros_like(self.compatibility),
            ),
            logits=aligned_zeros(*self.logits.shape),
            rows=aligned_empty(len(layout.vertex), 3, lanes),
        )
        for t in range(len(self.messages), -1, -1):
            self._backward_update(sweep, t, self._or_nothing(upstream[t]))
        run_all(
            partial(write_planes, self.shape.width, sweep.logits, sweep.gradients.scores, *bounds)
            for bounds in zip(layout.pixel_start, layout.pixel_start[1:], strict=False)
        )
        return sweep.gradients

    def _backward_update(self, sweep: _Sweep, t: int, upstream: FloatArray) -> None:
        run_all(
            partial(self._backward_chunk, c, sweep, t, upstream)
            for c in range(self.layout.num_chunks)
        )
        sweep.incoming = True
        if t == 0:
            return
        mixed = len(self.compatibility) > 0
        sums = np.empty_like(self.z[0]) if mixed else None
        run_all(blur_tasks(self.layout, sweep.rows, self.z, reverse=True, keep=sums))
        if sums is not None:
            out = sweep.gradients.compatibility
            add_outer_products(self.shape.width, self.messages[t - 1][:-1], sums[:-1], out)

    def _backward_chunk(self, c: int, sweep: _Sweep, t: int, upstream: FloatArray) -> None:
        chunk = self._chunk(c, sweep.rows)
        vertex = self.layout.of_chunk(self.layout.vertex, c)
        width, mixing = self.shape.width, self.compatibility
        if t > 0:
            gather_rows(width, vertex, self.messages[t - 1], mixing, chunk.rows, MESSAGE)
        if sweep.incoming:
            transposed = mixing.T.copy() if len(mixing) else mixing
            gather_rows(width, vertex, self.z[0], transposed, chunk.rows, INCOMING)
        backward_pass(
            self.shape._replace(slots=(0,) * 3),
            chunk,
            self.logits,
            upstream,
            sweep.logits,
            sweep.gradients.slice_weight,
            sweep.gradients.splat_weight,
            t > 0,
            sweep.incoming,
        )


def blur_tasks(
    layout: Layout,
    rows: FloatArray,
    z: Sequence[FloatArray],
    *,
    reverse: bool = False,
    keep: FloatArray | None = None,
) -> Iterator[Callable[[], None]]:
    """What sums the last slot of rows (R, slots, P) by vertex and blurs every lattice, to z[0].

    ``z`` are two buffers (M + 1, P) whose last row is zero. ``keep`` (M + 1, P) receives the sums
    before the blur.
    """
    lanes = rows.shape[2]
    groups = -(-torch.get_num_threads() // len(layout.lattices))
    step = -(-lanes // (groups * BLOCK)) * BLOCK
    for m in range(len(layout.lattices)):
        for lane in range(0, lanes, step):
            part = lane, min(step, lanes - lane)
            yield partial(_blur_lattice, layout, m, rows, z, reverse, keep, *part)


def _blur_lattice(
    layout: Layout,
    m: int,
    rows: FloatArray,
    z: Sequence[FloatArray],
    reverse: bool,
    keep: FloatArray | None,
    lane: int,
    lanes: int,
) -> None:
    """The part of ``blur_tasks`` for one lattice and some lanes."""
    width: Width = width_for(lanes)
    first, last = layout.vertex_start[m : m + 2]
    order = layout.blur_order(m, reverse=reverse)
    source, out = z[len(order) % 2], z[1 - len(order) % 2]
    sum_rows(width, layout.first_row[first : last + 1], layout.rows, rows, source[first:], lane)
    if keep is not None:
        keep[first:last, lane : lane + lanes] = source[first:last, lane : lane + lanes]
    tap = np.float32(layout.lattices[m].tap)
    for axis in order:
        blur_axis(width, layout.neighbours[m][axis], tap, source, out, first, lane)
        source, out = out, source
