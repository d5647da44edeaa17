"""Compiled passes of the fused mean field over the pixels of a chunk.

One pass over the pixels slices the messages of one update, takes the softmax and splats the
marginals of the next, a tile at a time, so that marginals do not leave the cache. Inside, pixels
are rows of P floats, P the padded number of labels; lanes past the last label hold marginals of
about 1e-30. Logits are kept in base 2.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import literal_unroll, njit
from numba.extending import register_jitable
from numpy.typing import NDArray

from napari_deepcrf.lattice.numba_exp2 import exp2
from napari_deepcrf.lattice.numba_simd import (
    BLOCK,
    LOG2_E,
    Width,
    fill,
    fma,
    item,
    largest,
    load,
    maximum,
    multiply,
    padded,
    store,
    subtract,
    total,
)
from napari_deepcrf.lattice.numba_transpose import transpose_block

NOTHING = np.float32(-1e30)
LOWEST = np.float32(-100)
"""Logits are cut so far below the largest, so that no marginal becomes denormal (slow)."""

MESSAGE = 0
"""The slot of the messages, the blurred sums."""
ONE = np.float32(1)

FloatArray = NDArray[np.float32]


@register_jitable
def tile_size(width: Width) -> int:
    """Pixels in a tile, about 100 KB: few enough for the L2 cache.

    Smaller tiles were slower: slice and splat each read rows of their own, and taking turns often
    throws out what the other will need.
    """
    return max(64, min(1024, 24576 // padded(width)))


class Part(NamedTuple):
    """One lattice's share of a chunk: N points of the image, K = d+1, R rows of the chunk."""

    row: NDArray[Any]
    """(N, K): the row of each of a point's vertices."""
    weight: FloatArray
    """(N, K)."""
    before: FloatArray
    """(N,): factors of what is splatted."""
    after: FloatArray
    """(N,): factors of what is sliced."""
    rows: FloatArray
    """(R, slots, P): what the rows hold; sums are splatted to the last slot."""
    corners: Width
    """K zeros: K as a compile-time constant."""


class Image(NamedTuple):
    """The scaled marginals of all pixels, where somebody needs them."""

    values: FloatArray
    """(N, P), or N = 0 where nobody does."""
    factor: FloatArray
    """(N,)."""


@njit(inline="always")
def read_tile(
    width: Width, planes: FloatArray, beyond: Any, tile: FloatArray, first: int, count: int
) -> None:
    """Planes (L, N) of a tile as its rows; ``beyond`` in the lanes past the last label."""
    labels, num_points = planes.shape
    lanes = padded(width)
    blocks = labels // BLOCK * BLOCK
    whole = count // BLOCK * BLOCK
    for c in range(0, blocks, BLOCK):
        for t in range(0, whole, BLOCK):
            at = c * num_points + first + t
            transpose_block(planes, at, num_points, tile, t * lanes + c, lanes)
        for t in range(whole, count):
            for j in range(c, c + BLOCK):
                tile[t, j] = planes[j, first + t]
    for c in range(blocks, lanes):
        for t in range(count):
            tile[t, c] = planes[c, first + t] if c < labels else beyond


@njit(inline="always")
def keep_logits(width: Width, tile: FloatArray, logits: FloatArray, first: int, count: int) -> None:
    """Scores of a tile to logits in base 2, in place and in ``logits`` (N, P)."""
    lanes = padded(width)
    scale = fill(width, LOG2_E)
    for t in range(count):
        x = multiply(load(width, tile, t * lanes), scale)
        store(tile, t * lanes, x)
        store(logits, (first + t) * lanes, x)


@njit(inline="always")
def write_tile(width: Width, tile: FloatArray, out: FloatArray, first: int, count: int) -> None:
    """Write the rows of a tile into out (L, N), unless N is 0."""
    labels, num_points = out.shape
    if num_points == 0:
        return
    lanes = padded(width)
    blocks = labels // BLOCK * BLOCK
    whole = count // BLOCK * BLOCK
    for c in range(0, blocks, BLOCK):
        for t in range(0, whole, BLOCK):
            at = c * num_points + first + t
            transpose_block(tile, t * lanes + c, lanes, out, at, num_points)
        for t in range(whole, count):
            for j in range(c, c + BLOCK):
                out[j, first + t] = tile[t, j]
    for c in range(blocks, labels):
        for t in range(count):
            out[c, first + t] = tile[t, c]


@njit(inline="always")
def keep_image(width: Width, tile: FloatArray, image: Image, first: int, count: int) -> None:
    """Write a tile's marginals to the image."""
    lanes = padded(width)
    if image.values.shape[0] > 0:
        for t in range(count):
            x = multiply(load(width, tile, t * lanes), fill(width, image.factor[first + t]))
            store(image.values, (first + t) * lanes, x)


@njit(inline="always")
def copy_tile(width: Width, pixels: FloatArray, tile: FloatArray, first: int, count: int) -> None:
    """Rows of pixels (N, P) from ``first`` on to the tile."""
    lanes = padded(width)
    for t in range(count):
        store(tile, t * lanes, load(width, pixels, (first + t) * lanes))


@njit(inline="always")
def slice_tile(
    width: Width,
    slots: Width,
    part: Part,
    factor: FloatArray,
    scale: Any,
    slot: int,
    tile: FloatArray,
    first: int,
    count: int,
) -> None:
    """Add scale factor Σ_k weight_k rows(row_k, slot) to the tile; factor is (N,)."""
    lanes, corners = padded(width), len(part.corners)
    stride = len(slots) * lanes
    for t in range(count):
        i = first + t
        x = fill(width, 0)
        for k in range(corners):
            at = np.int64(item(part.row, i * corners + k)) * stride + slot * lanes
            weight = fill(width, item(part.weight, i * corners + k))
            x = fma(weight, load(width, part.rows, at), x)
        x = fma(fill(width, scale * item(factor, i)), x, load(width, tile, t * lanes))
        store(tile, t * lanes, x)


@njit(inline="always")
def softmax_tile(width: Width, tile: FloatArray, count: int) -> None:
    """Logits of a tile to marginals, in place."""
    lanes = padded(width)
    for t in range(count):
        x = load(width, tile, t * lanes)
        x = maximum(subtract(x, fill(width, largest(x))), fill(width, LOWEST))
        x = exp2(width, x)
        store(tile, t * lanes, multiply(x, fill(width, ONE / total(x))))


@njit(inline="always")
def splat_tile(
    width: Width,
    slots: Width,
    part: Part,
    factor: FloatArray,
    tile: FloatArray,
    first: int,
    count: int,
) -> None:
    """Add weight_k factor tile to the sum of row_k; factor is (N,)."""
    lanes, corners = padded(width), len(part.corners)
    stride = len(slots) * lanes
    for t in range(count):
        i = first + t
        x = multiply(fill(width, item(factor, i)), load(width, tile, t * lanes))
        for k in range(corners):
            at = np.int64(item(part.row, i * corners + k)) * stride + (stride - lanes)
            weight = fill(width, item(part.weight, i * corners + k))
            store(part.rows, at, fma(weight, x, load(width, part.rows, at)))


@njit(inline="always")
def clear_sums(width: Width, slots: Width, rows: FloatArray) -> None:
    """Zero the last slot of rows (R, slots, P)."""
    lanes = padded(width)
    stride = len(slots) * lanes
    for r in range(rows.shape[0]):
        store(rows, (r + 1) * stride - lanes, fill(width, 0))


@njit(nogil=True, cache=True, error_model="numpy")
def start_pass(
    width: Width,
    slots: Width,
    parts: tuple[Part, ...],
    begin: int,
    end: int,
    scores: FloatArray,
    logits: FloatArray,
    image: Image,
    out: FloatArray,
) -> None:
    """Softmax of the scores (L, N) of pixels begin..end, kept as logits (N, P), and splat.

    The marginals are also written to ``image`` and ``out`` (L, N), unless their N is 0.
    """
    size = tile_size(width)
    tile = np.empty((size, padded(width)), np.float32)
    for part in literal_unroll(parts):
        clear_sums(width, slots, part.rows)
    for first in range(begin, end, size):
        count = min(size, end - first)
        read_tile(width, scores, NOTHING, tile, first, count)
        keep_logits(width, tile, logits, first, count)
        softmax_tile(width, tile, count)
        write_tile(width, tile, out, first, count)
        keep_image(width, tile, image, first, count)
        for part in literal_unroll(parts):
            splat_tile(width, slots, part, part.before, tile, first, count)


@njit(nogil=True, cache=True, error_model="numpy")
def update_pass(
    width: Width,
    slots: Width,
    parts: tuple[Part, ...],
    begin: int,
    end: int,
    logits: FloatArray,
    image: Image,
    out: FloatArray,
    last: bool,
) -> None:
    """One update of pixels begin..end: slice, add to logits (N, P), softmax; then splat.

    The marginals are also written to ``image`` and ``out`` (L, N), unless their N is 0; the last
    update splats nothing.
    """
    size = tile_size(width)
    tile = np.empty((size, padded(width)), np.float32)
    for part in literal_unroll(parts):
        clear_sums(width, slots, part.rows)
    for first in range(begin, end, size):
        count = min(size, end - first)
        copy_tile(width, logits, tile, first, count)
        for part in literal_unroll(parts):
            slice_tile(width, slots, part, part.after, LOG2_E, MESSAGE, tile, first, count)
        softmax_tile(width, tile, count)
        write_tile(width, tile, out, first, count)
        keep_image(width, tile, image, first, count)
        if not last:
            for part in literal_unroll(parts):
                splat_tile(width, slots, part, part.before, tile, first, count)
