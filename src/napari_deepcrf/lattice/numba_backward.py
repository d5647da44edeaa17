"""Compiled passes of the fused mean field's backward sweep [paper, eq. 7, 8].

Marginals are not kept: each update's are computed again from its messages, whose values at the
lattice's vertices are small. One pass over the pixels takes the gradient that arrives at an
update's marginals back through the softmax and on to the messages.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from napari_deepcrf.lattice.numba_passes import (
    MESSAGE,
    TILE,
    Chunk,
    Shape,
    clear_sums,
    read_tile,
    slice_tile,
    softmax_tile,
    splat_tile,
    write_tile,
)
from napari_deepcrf.lattice.numba_simd import (
    LOG2_E,
    Width,
    add,
    fill,
    fma,
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


@njit(nogil=True, cache=True, error_model="numpy")
def backward_pass(
    shape: Shape,
    chunk: Chunk,
    logits: FloatArray,
    upstream: FloatArray,
    gradient: FloatArray,
    grad_slice: FloatArray,
    grad_splat: FloatArray,
    has_message: bool,
    has_incoming: bool,
) -> None:
    """One update, backwards: from the gradient of its marginals to that of its messages.

    ``upstream`` (L, N) is the gradient that arrives from outside, none if its N is 0; rows
    (R, 3, P) hold messages and incoming gradients, where there are any, and receive the gradients
    of the messages. Adds to the gradients of the logits (N, P) and of both weights (N, K).
    """
    width, lanes = shape.width, padded(shape.width)
    marginals = np.empty((TILE, lanes), np.float32)
    tile = np.empty((TILE, lanes), np.float32)
    clear_sums(shape, chunk.rows)
    for first in range(chunk.begin, chunk.end, TILE):
        count = min(TILE, chunk.end - first)
        marginals_again(shape, chunk, logits, has_message, marginals, first, count)
        if upstream.shape[1] > 0:
            read_tile(width, upstream, ZERO, tile, first, count)
        else:
            clear_tile(width, tile, count)
        if has_incoming:
            weight = chunk.splat_weight
            slice_tile(shape, chunk, weight, INCOMING, tile, 0, ONE, tile, first, count)
            dot_tile(shape, chunk, INCOMING, marginals, grad_splat, first, count)
        softmax_backward(width, marginals, tile, count)
        accumulate(width, tile, gradient, first, count)
        if has_message:
            dot_tile(shape, chunk, MESSAGE, tile, grad_slice, first, count)
            splat_tile(shape, chunk, chunk.slice_weight, tile, first, count)


@njit(inline="always")
def marginals_again(
    shape: Shape,
    chunk: Chunk,
    logits: FloatArray,
    has_message: bool,
    tile: FloatArray,
    first: int,
    count: int,
) -> None:
    """The marginals of a tile from logits (N, P) and, after the first update, messages."""
    lanes = padded(shape.width)
    if has_message:
        weight = chunk.slice_weight
        slice_tile(shape, chunk, weight, MESSAGE, logits, first, LOG2_E, tile, first, count)
    else:
        for t in range(count):
            store(tile, t * lanes, load(shape.width, logits, (first + t) * lanes))
    softmax_tile(shape.width, tile, count)


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
    shape: Shape,
    chunk: Chunk,
    slot: int,
    tile: FloatArray,
    out: FloatArray,
    first: int,
    count: int,
) -> None:
    """Add to out_k: tile · rows(row_k, slot), out (N, K)."""
    width, lanes = shape.width, padded(shape.width)
    stride = len(shape.slots) * lanes
    for t in range(count):
        i = first + t
        x = load(width, tile, t * lanes)
        for k in range(len(shape.vertices)):
            at = np.int64(chunk.row[i, k]) * stride + slot * lanes
            out[i, k] += total(multiply(x, load(width, chunk.rows, at)))


@njit(nogil=True, cache=True)
def write_planes(width: Width, pixels: FloatArray, out: FloatArray, begin: int, end: int) -> None:
    """Pixels begin..end of (N, P) to planes (L, N)."""
    for first in range(begin, end, TILE):
        count = min(TILE, end - first)
        write_tile(width, pixels[first : first + count], out, first, count)


@njit(nogil=True, cache=True)
def add_outer_products(width: Width, x: FloatArray, y: FloatArray, out: FloatArray) -> None:
    """Add to out (P, P):  Σ_v x_v y_vᵀ for x, y (M, P); in order of v."""
    lanes = padded(width)
    for v in range(x.shape[0]):
        yv = load(width, y, v * lanes)
        for c in range(lanes):
            store(out, c * lanes, fma(fill(width, x[v, c]), yv, load(width, out, c * lanes)))
