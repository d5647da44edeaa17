"""Building lattices on the CPU: vertices by hashing packed keys, neighbours, rows by vertex."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from napari_deepcrf.lattice.numba_embed import TILE, embed_tile

Int32Array = NDArray[np.int32]
Int64Array = NDArray[np.int64]
FloatArray = NDArray[np.float32]

EMPTY = np.int64(-1)
"""In a slot without a key; keys are not negative."""
FIRST_SLOTS = 1 << 14
"""Slots of a new table, which grows as it fills; a power of two."""
RECENT = 1 << 12
"""Simplices whose rows are kept at hand while points are embedded."""
HASH = np.int64(-7046029254386353131)
"""2^64 over the golden ratio: a product with it spreads keys over the bits that are kept, all but
the lowest 20, which it mixes least."""


@njit(nogil=True, cache=True, fastmath={"nnan", "nsz"})
def bounds(planes: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The least and the largest of each feature; planes (d, N)."""
    lowest, highest = planes[:, 0].copy(), planes[:, 0].copy()
    for j in range(planes.shape[0]):
        low = high = planes[j, 0]
        for i in range(planes.shape[1]):
            x = planes[j, i]
            low = x if x < low else low
            high = x if x > high else high
        lowest[j], highest[j] = low, high
    return lowest, highest


@njit(nogil=True, cache=True)
def slot_of(slots: Int64Array, key: Any) -> Any:
    """Where a key is, or belongs, in an open-addressing table of (key, vertex) rows."""
    mask = slots.shape[0] - 1
    at = ((key * HASH) >> np.int64(20)) & mask
    while slots[at, 0] != key and slots[at, 0] != EMPTY:
        at = (at + 1) & mask
    return at


@njit(nogil=True, cache=True)
def new_slots(count: int, keys: Int64Array, num_keys: int) -> Int64Array:
    """A table of ``count`` slots (a power of two) that holds keys 0..num_keys-1."""
    slots = np.full((count, 2), EMPTY, np.int64)
    for v in range(num_keys):
        at = slot_of(slots, keys[v])
        slots[at, 0] = keys[v]
        slots[at, 1] = v
    return slots


@njit(nogil=True, cache=True)
def room_for(
    more: int, slots: Int64Array, keys: Int64Array, num_keys: int
) -> tuple[Int64Array, Int64Array]:
    """The table and key list, grown so that ``more`` keys leave the table half empty."""
    wanted = num_keys + more
    if wanted > keys.shape[0]:
        longer = np.empty(2 * wanted, np.int64)
        longer[:num_keys] = keys[:num_keys]
        keys = longer
    if 2 * wanted > slots.shape[0]:
        count = slots.shape[0]
        while count < 4 * wanted:
            count *= 2
        slots = new_slots(count, keys, num_keys)
    return slots, keys


@njit(nogil=True, cache=True)
def intern_points(
    planes: FloatArray,
    first: int,
    last: int,
    scale: tuple[Any, ...],
    stride: tuple[Any, ...],
    offset: int,
    row: NDArray[Any],
    weight: FloatArray,
    rank: NDArray[np.int8],
) -> Int64Array:
    """Embed points first..last of planes (d, N) and number the vertices by first appearance.

    Fills row (N, d+1), which may wrap around where its type is too narrow, weight and rank. Returns
    the keys by row.

    Neighbouring pixels share their simplex more often than not. The rows of recent simplices are
    kept by a hash of their vertices' keys, so that such a pixel takes one look-up, not d+1.
    """
    d = len(scale)
    keys = np.empty((d + 1, TILE), np.int64)
    weights = np.empty((d + 1, TILE), np.float32)
    ranks = np.empty((d + 1, TILE), np.float32)
    simplex = np.empty(TILE, np.int64)
    tile = np.zeros((d, TILE), np.float32)
    recent_keys = np.full((RECENT, d + 1), EMPTY, np.int64)
    recent_rows = np.empty((RECENT, d + 1), np.int32)
    row_keys = np.empty(FIRST_SLOTS // 2, np.int64)
    slots = new_slots(FIRST_SLOTS, row_keys, 0)
    count = 0
    for start in range(first, last, TILE):
        size = min(TILE, last - start)
        for j in range(d):
            for p in range(size):
                tile[j, p] = planes[j, start + p]
        embed_tile(tile, scale, stride, offset, keys, weights, ranks)
        hash_simplices(keys, simplex)
        slots, row_keys = room_for(TILE * (d + 1), slots, row_keys, count)
        for p in range(size):
            at = simplex[p]
            known = True
            for k in range(d + 1):
                known &= recent_keys[at, k] == keys[k, p]
            if not known:
                for k in range(d + 1):
                    key = keys[k, p]
                    slot = slot_of(slots, key)
                    if slots[slot, 0] == EMPTY:
                        slots[slot, 0] = key
                        slots[slot, 1] = count
                        row_keys[count] = key
                        count += 1
                    recent_keys[at, k] = key
                    recent_rows[at, k] = slots[slot, 1]
            for k in range(d + 1):
                row[start + p, k] = recent_rows[at, k]
                weight[start + p, k] = weights[k, p]
                rank[start + p, k] = np.int8(ranks[k, p])
    return row_keys[:count].copy()


@njit(nogil=True, cache=True)
def hash_simplices(keys: Int64Array, simplex: Int64Array) -> None:
    """A place in the table of recent simplices for each column of keys (d+1, TILE)."""
    for p in range(TILE):
        simplex[p] = keys[0, p]
    for k in range(1, keys.shape[0]):
        for p in range(TILE):
            simplex[p] += (2 * k + 1) * keys[k, p]
    for p in range(TILE):
        simplex[p] = ((simplex[p] * HASH) >> np.int64(20)) & (RECENT - 1)


@njit(nogil=True, cache=True)
def merge_chunks(
    chunk_keys: Int64Array, row_vertex: Int32Array
) -> tuple[Int64Array, Int64Array, int]:
    """Number the keys (R,) of all chunks' rows in order of first appearance.

    Fills row_vertex (R,). Returns the hash table, the keys by vertex (with spare room) and the
    number of vertices M.
    """
    count = 0
    keys = np.empty(chunk_keys.shape[0], np.int64)
    size = FIRST_SLOTS
    while size < 2 * chunk_keys.shape[0]:
        size *= 2
    slots = new_slots(size, keys, 0)
    for r in range(chunk_keys.shape[0]):
        at = slot_of(slots, chunk_keys[r])
        if slots[at, 0] == EMPTY:
            slots[at, 0] = chunk_keys[r]
            slots[at, 1] = count
            keys[count] = chunk_keys[r]
            count += 1
        row_vertex[r] = slots[at, 1]
    return slots, keys, count


@njit(nogil=True, cache=True)
def name_vertices(row: NDArray[Any], row_vertex: Int32Array, vertex: Int32Array) -> None:
    """Vertices (N, d+1) of a chunk's points from their rows and the rows' vertices (R_c,)."""
    for i in range(row.shape[0]):
        for k in range(row.shape[1]):
            vertex[i, k] = row_vertex[row[i, k]]


@njit(nogil=True, cache=True)
def step(key: Any, axis: int, stride: tuple[Any, ...], sign: int) -> Any:
    """The key one step along an axis: +1 on every coordinate, -d on that of the axis."""
    d = len(stride)
    total = np.int64(0)
    for i in range(d):
        total += stride[i]
    own = stride[axis] if axis < d else np.int64(0)
    stepped = key + sign * (1 - own)
    if key % (d + 1) == (d if sign > 0 else 0):
        stepped += sign * (total - (d + 1))
    return stepped


@njit(nogil=True, cache=True)
def add_ring(
    slots: Int64Array, keys: Int64Array, num_vertices: int, stride: tuple[Any, ...]
) -> tuple[Int64Array, Int64Array, int]:
    """Add the missing neighbours of the vertices; returns as ``intern_points`` does."""
    d = len(stride)
    count = num_vertices
    for v in range(num_vertices):
        slots, keys = room_for(2 * (d + 1), slots, keys, count)
        for axis in range(d + 1):
            for sign in (-1, 1):
                key = step(keys[v], axis, stride, sign)
                at = slot_of(slots, key)
                if slots[at, 0] == EMPTY:
                    slots[at, 0] = key
                    slots[at, 1] = count
                    keys[count] = key
                    count += 1
    return slots, keys, count


@njit(nogil=True, cache=True)
def find_neighbours(
    slots: Int64Array,
    keys: Int64Array,
    stride: tuple[Any, ...],
    neighbours: Int32Array,
    first: int,
    last: int,
) -> None:
    """Link vertices first..last with their right neighbours, in both directions.

    Every entry of neighbours (d+1, M, 2) has one writer at most, so that parts of the vertices
    can run at once; entries of missing neighbours keep what they hold.
    """
    d = len(stride)
    for v in range(first, last):
        for axis in range(d + 1):
            at = slot_of(slots, step(keys[v], axis, stride, 1))
            if slots[at, 0] != EMPTY:
                right = slots[at, 1]
                neighbours[axis, v, 1] = right
                neighbours[axis, right, 0] = v


@njit(nogil=True, cache=True)
def rows_by_vertex(vertex: Int32Array, num_vertices: int) -> tuple[Int32Array, Int32Array]:
    """Group entries (E,) by their vertex: where runs start (M+1,), and the entries, ascending."""
    row_start = np.zeros(num_vertices + 1, np.int32)
    for e in range(vertex.shape[0]):
        row_start[vertex[e] + 1] += 1
    for v in range(num_vertices):
        row_start[v + 1] += row_start[v]
    entry = np.empty(vertex.shape[0], np.int32)
    at = row_start[:-1].copy()
    for e in range(vertex.shape[0]):
        v = vertex[e]
        entry[at[v]] = e
        at[v] += 1
    return row_start, entry
