"""Embedding on the CPU: tiles of points to lattice keys and barycentric weights, vectorised.

Every step runs over the ``TILE`` points of a tile in its innermost loop, on arrays laid out
(coordinate, point), so that LLVM turns it into SIMD code. The number of feature dimensions d is
``len(scale)``, a compile-time constant, because ``scale`` and ``stride`` are tuples.

Keys number vertices as in ``torch_ops``: the vertex of remainder k has coordinates (d+1) m_i + k
and the key k + Σ stride_i m_i over i < d, with stride_0 = d+1.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

TILE = 64
ONE = np.float32(1)
ZERO = np.float32(0)

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int64]


@njit(nogil=True, cache=True, inline="never")
def embed_tile(
    features: FloatArray,
    scale: tuple[Any, ...],
    stride: tuple[Any, ...],
    offset: int,
    keys: IntArray,
    weights: FloatArray,
    ranks: FloatArray,
) -> None:
    """Embed one tile: features (d, TILE) -> keys, weights and ranks, each (d+1, TILE).

    ``scale`` (d floats) maps features to the lattice, ``stride`` (d ints) and ``offset`` make
    keys of cells. Columns past the last point of a ragged tile may hold anything finite.
    """
    d = len(scale)
    residual = np.empty((d + 1, TILE), np.float32)
    cell = np.empty((d + 1, TILE), np.float32)
    excess = np.empty(TILE, np.float32)
    _elevate(features, scale, residual, excess)
    _nearest_cells(residual, cell, excess, d)
    _rank(residual, ranks, d)
    _wrap(residual, cell, ranks, excess, d)
    lowered = np.empty((d + 1, TILE), np.int64)
    for p in range(TILE):
        keys[0, p] = offset
        lowered[d, p] = 0
    for i in range(d):
        for p in range(TILE):
            keys[0, p] += np.int64(np.int32(cell[i, p])) * stride[i]
            lowered[i, p] = stride[i]
    _sort_descending(residual, lowered, d)
    inverse = np.float32(1.0 / (d + 1))
    for p in range(TILE):
        weights[0, p] = ONE - (residual[0, p] - residual[d, p]) * inverse
    for k in range(1, d + 1):
        for p in range(TILE):
            keys[k, p] = keys[k - 1, p] + 1 - lowered[d + 1 - k, p]
            weights[k, p] = (residual[d - k, p] - residual[d + 1 - k, p]) * inverse


@njit(nogil=True, cache=True)
def _elevate(
    features: FloatArray, scale: tuple[Any, ...], elevated: FloatArray, total: FloatArray
) -> None:
    """Features (d, TILE) to elevated coordinates (d+1, TILE); ``total`` is scratch (TILE,)."""
    d = len(scale)
    for p in range(TILE):
        total[p] = ZERO
    for j in range(d, 0, -1):
        for p in range(TILE):
            scaled = features[j - 1, p] * np.float32(scale[j - 1])
            elevated[j, p] = total[p] - np.float32(j) * scaled
            total[p] += scaled
    for p in range(TILE):
        elevated[0, p] = total[p]


@njit(nogil=True, cache=True)
def _nearest_cells(residual: FloatArray, cell: FloatArray, excess: FloatArray, d: int) -> None:
    """Round each coordinate to a multiple of d+1, in place; ``excess`` sums the cells."""
    order = np.float32(d + 1)
    inverse = np.float32(1.0 / (d + 1))
    for p in range(TILE):
        excess[p] = ZERO
    for i in range(d + 1):
        for p in range(TILE):
            nearest = np.float32(np.rint(residual[i, p] * inverse))
            cell[i, p] = nearest
            residual[i, p] -= order * nearest
            excess[p] += nearest


@njit(nogil=True, cache=True)
def _rank(residual: FloatArray, ranks: FloatArray, d: int) -> None:
    """Descending rank of each residual; ties go to the lower coordinate."""
    for i in range(d + 1):
        for p in range(TILE):
            ranks[i, p] = ZERO
    for i in range(d + 1):
        for j in range(i + 1, d + 1):
            for p in range(TILE):
                larger = ONE if residual[j, p] > residual[i, p] else ZERO
                ranks[i, p] += larger
                ranks[j, p] += ONE - larger


@njit(nogil=True, cache=True)
def _wrap(
    residual: FloatArray, cell: FloatArray, ranks: FloatArray, excess: FloatArray, d: int
) -> None:
    """Move the largest or smallest residuals to the next cell until the cells sum to zero."""
    order = np.float32(d + 1)
    last = np.float32(d)
    for i in range(d + 1):
        for p in range(TILE):
            rank = ranks[i, p] + excess[p]
            shift = (ONE if rank < ZERO else ZERO) - (ONE if rank > last else ZERO)
            cell[i, p] += shift
            residual[i, p] -= order * shift
            ranks[i, p] = rank + order * shift


@njit(nogil=True, cache=True)
def _sort_descending(values: FloatArray, carried: IntArray, d: int) -> None:
    """Sort each column of values (d+1, TILE), carrying integers along; stable."""
    for end in range(d, 0, -1):
        for i in range(end):
            for p in range(TILE):
                a, b = values[i, p], values[i + 1, p]
                x, y = carried[i, p], carried[i + 1, p]
                swap = a < b
                values[i, p] = b if swap else a
                values[i + 1, p] = a if swap else b
                carried[i, p] = y if swap else x
                carried[i + 1, p] = x if swap else y
