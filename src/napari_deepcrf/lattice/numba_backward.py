"""Compiled passes of the fused mean field's backward sweep [paper, eq. 7, 8].

Where there are lattices alone, marginals are not kept: each update's are computed again from its
messages, whose values at the lattice's vertices are small. With a grid term they are kept. One
pass over the pixels takes the gradient that arrives at an update's marginals back through the
softmax and on to the messages.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import literal_unroll, njit
from numpy.typing import NDArray

from napari_deepcrf.lattice.numba_passes import (
    MESSAGE,
    Part,
    clear_sums,
    copy_tile,
    read_tile,
    slice_tile,
    softmax_tile,
    splat_tile,
    tile_size,
    write_tile,
)
from napari_deepcrf.lattice.numba_simd import (
    LOG2_E,
    Width,
    add,
    fill,
    fma,
    item,
    load,
    multiply,
    padded,
    store,
    subtract,
    total,
)

INCOMING = 1
"""The slot of the gradients of the sums that the marginals were splatted to."""
ZERO = np.float32(0)
ONE = np.float32(1)

FloatArray = NDArray[np.float32]


class PartGradients(NamedTuple):
    """The gradients of one lattice's weights (N, K) and factors (N,)."""

    weight: FloatArray
    before: FloatArray
    after: FloatArray


class GridPass(NamedTuple):
    """What a pass exchanges with the grid term, every array (N, P) or of N = 0 without one."""

    marginals: FloatArray
    """The kept marginals, scaled."""
    unscale: FloatArray
    """(N,) what undoes that."""
    incoming: FloatArray
    """The gradient that the later update's grid term sends to the marginals, if there is one."""
    outgoing: FloatArray
    """Receives the gradient of the grid message, µ taken back, times ``factor``."""
    factor: FloatArray
    """(N,)."""
    logits_gradient: FloatArray
    """Receives the gradient of the mixed message where there is a µ."""
    mixing: FloatArray
    """µᵀ (P, P), or empty."""


@njit(nogil=True, cache=True, error_model="numpy")
def backward_pass(
    width: Width,
    slots: Width,
    parts: tuple[tuple[Part, PartGradients], ...],
    begin: int,
    end: int,
    logits: FloatArray,
    upstream: FloatArray,
    grad_logits: FloatArray,
    grid: GridPass,
    has_message: bool,
    has_incoming: bool,
) -> None:
    """One update, backwards: from the gradient of its marginals to that of its messages.

    ``upstream`` (L, N) is the gradient that arrives from outside, none if its N is 0; rows
    (R, 3, P) hold messages and incoming gradients, where there are any, and receive the gradients
    of the messages. Adds to the gradients of the scores (N, P) and of every part.
    """
    lanes = padded(width)
    size = tile_size(width)
    marginals = np.empty((size, lanes), np.float32)
    tile = np.empty((size, lanes), np.float32)
    for pair in literal_unroll(parts):
        clear_sums(width, slots, pair[0].rows)
    for first in range(begin, end, size):
        count = min(size, end - first)
        if grid.marginals.shape[0] > 0:
            read_marginals(width, grid, marginals, first, count)
        else:
            copy_tile(width, logits, marginals, first, count)
            if has_message:
                for pair in literal_unroll(parts):
                    part, scale = pair[0], LOG2_E
                    slice_tile(
                        width, slots, part, part.after, scale, MESSAGE, marginals, first, count
                    )
            softmax_tile(width, marginals, count)
        clear_tile(width, tile, count)
        if upstream.shape[1] > 0:
            read_tile(width, upstream, ZERO, tile, first, count)
        if grid.incoming.shape[0] > 0:
            add_to_tile(width, grid.incoming, tile, first, count)
        if has_incoming:
            for pair in literal_unroll(parts):
                take_incoming(width, slots, pair, marginals, tile, first, count)
        softmax_backward(width, marginals, tile, count)
        accumulate(width, tile, grad_logits, first, count)
        if has_message:
            for pair in literal_unroll(parts):
                give_outgoing(width, slots, pair, tile, first, count)
            if grid.outgoing.shape[0] > 0:
                give_grid(width, grid, tile, first, count)


@njit(inline="always")
def read_marginals(width: Width, grid: GridPass, tile: FloatArray, first: int, count: int) -> None:
    """The kept marginals of a tile, unscaled."""
    lanes = padded(width)
    for t in range(count):
        x = load(width, grid.marginals, (first + t) * lanes)
        store(tile, t * lanes, multiply(x, fill(width, grid.unscale[first + t])))


@njit(inline="always")
def add_to_tile(width: Width, pixels: FloatArray, tile: FloatArray, first: int, count: int) -> None:
    """Add the rows of pixels (N, P) from ``first`` on to the tile."""
    lanes = padded(width)
    for t in range(count):
        x = load(width, pixels, (first + t) * lanes)
        store(tile, t * lanes, add(x, load(width, tile, t * lanes)))


@njit(inline="always")
def give_grid(width: Width, grid: GridPass, tile: FloatArray, first: int, count: int) -> None:
    """Write the logits' gradient as that of the grid message."""
    lanes = padded(width)
    for t in range(count):
        x = load(width, tile, t * lanes)
        if grid.mixing.shape[0] > 0:
            store(grid.logits_gradient, (first + t) * lanes, x)
            x = fill(width, ZERO)
            for c in range(lanes):
                x = fma(fill(width, tile[t, c]), load(width, grid.mixing, c * lanes), x)
        x = multiply(x, fill(width, grid.factor[first + t]))
        store(grid.outgoing, (first + t) * lanes, x)


@njit(inline="always")
def take_incoming(
    width: Width,
    slots: Width,
    pair: tuple[Part, PartGradients],
    marginals: FloatArray,
    tile: FloatArray,
    first: int,
    count: int,
) -> None:
    """Slice what the later update sent back: to the marginals' gradient and its own weights."""
    part, gradient = pair
    slice_tile(width, slots, part, part.before, ONE, INCOMING, tile, first, count)
    grads = gradient.weight, gradient.before
    dot_tile(width, slots, part, part.before, INCOMING, marginals, grads, first, count)


@njit(inline="always")
def give_outgoing(
    width: Width,
    slots: Width,
    pair: tuple[Part, PartGradients],
    tile: FloatArray,
    first: int,
    count: int,
) -> None:
    """Splat the logits' gradient as that of the messages, with the gradients of its weights."""
    part, gradient = pair
    grads = gradient.weight, gradient.after
    dot_tile(width, slots, part, part.after, MESSAGE, tile, grads, first, count)
    splat_tile(width, slots, part, part.after, tile, first, count)


@njit(inline="always")
def clear_tile(width: Width, tile: FloatArray, count: int) -> None:
    for t in range(count):
        store(tile, t * padded(width), fill(width, ZERO))


@njit(inline="always")
def softmax_backward(width: Width, marginals: FloatArray, tile: FloatArray, count: int) -> None:
    """Gradients of marginals to gradients of logits, in place: q (g - Σ q g)."""
    lanes = padded(width)
    for t in range(count):
        q = load(width, marginals, t * lanes)
        g = load(width, tile, t * lanes)
        mean = fill(width, total(multiply(q, g)))
        store(tile, t * lanes, multiply(q, subtract(g, mean)))


@njit(inline="always")
def accumulate(width: Width, tile: FloatArray, sums: FloatArray, first: int, count: int) -> None:
    """Add the rows of a tile to sums (N, P)."""
    lanes = padded(width)
    for t in range(count):
        at = (first + t) * lanes
        store(sums, at, add(load(width, sums, at), load(width, tile, t * lanes)))


@njit(inline="always")
def dot_tile(
    width: Width,
    slots: Width,
    part: Part,
    factor: FloatArray,
    slot: int,
    tile: FloatArray,
    gradients: tuple[FloatArray, FloatArray],
    first: int,
    count: int,
) -> None:
    """Add the gradients of weight_k and factor: factor d_k and Σ_k weight_k d_k.

    d_k = tile · rows(row_k, slot).
    """
    grad_weight, grad_factor = gradients
    lanes, corners = padded(width), len(part.corners)
    stride = len(slots) * lanes
    for t in range(count):
        i = first + t
        x = load(width, tile, t * lanes)
        weighted = ZERO
        for k in range(corners):
            at = np.int64(item(part.row, i * corners + k)) * stride + slot * lanes
            dot = total(multiply(x, load(width, part.rows, at)))
            grad_weight[i, k] += item(factor, i) * dot
            weighted += item(part.weight, i * corners + k) * dot
        grad_factor[i] += weighted


@njit(nogil=True, cache=True)
def write_planes(width: Width, pixels: FloatArray, out: FloatArray, begin: int, end: int) -> None:
    """Pixels begin..end of (N, P) to planes (L, N)."""
    size = tile_size(width)
    for first in range(begin, end, size):
        count = min(size, end - first)
        write_tile(width, pixels[first : first + count], out, first, count)


@njit(nogil=True, cache=True)
def add_outer_products(width: Width, x: FloatArray, y: FloatArray, out: FloatArray) -> None:
    """Add to out (P, P):  Σ_v x_v y_vᵀ for x, y (M, P); in order of v."""
    lanes = padded(width)
    for v in range(x.shape[0]):
        yv = load(width, y, v * lanes)
        for c in range(lanes):
            store(out, c * lanes, fma(fill(width, x[v, c]), yv, load(width, out, c * lanes)))
