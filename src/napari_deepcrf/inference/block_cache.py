"""Windows of a lazy array, read through the chunks that were read last."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Any

import dask.array as da
import numpy as np
from numpy.typing import NDArray

ROOM = 192 << 20
"""Bytes of chunks that are kept: a row of tiles of 16384 RGB pixels and what is around them."""
FEWEST = 8
"""Where fewer chunks than these have room, none is kept."""


class BlockCache:
    """Reads windows of an (H, W, C) array.

    Tiles and their surroundings, and the bands of the network's windows, ask for the same chunks
    again and again, and each time a chunk would be decompressed whole.
    """

    def __init__(self, array: da.Array) -> None:
        self._array = array
        self._edges = [np.cumsum([0, *lengths]) for lengths in array.chunks[:2]]
        largest = np.prod([max(lengths) for lengths in array.chunks[:2]]) * array.shape[2]
        self._keep = FEWEST * int(largest) * array.dtype.itemsize <= ROOM
        self._blocks: OrderedDict[tuple[int, int], NDArray[Any]] = OrderedDict()
        self._size = 0
        self._lock = threading.Lock()

    def read(self, rows: slice, columns: slice) -> NDArray[Any]:
        """(h, w, C) of a window inside the array; raises what reading the array raises."""
        if not self._keep:
            return _computed(self._array[rows, columns])
        touched = [
            range(
                np.searchsorted(edges, along.start, "right") - 1, np.searchsorted(edges, along.stop)
            )
            for edges, along in zip(self._edges, (rows, columns), strict=True)
        ]
        shape = (rows.stop - rows.start, columns.stop - columns.start, self._array.shape[2])
        window = np.empty(shape, self._array.dtype)
        for i in touched[0]:
            y, inner_y = _overlap(rows, self._edges[0][i : i + 2])
            for j in touched[1]:
                x, inner_x = _overlap(columns, self._edges[1][j : j + 2])
                window[y, x] = self._block(i, j)[inner_y, inner_x]
        return window

    def _block(self, i: int, j: int) -> NDArray[Any]:
        with self._lock:
            block = self._blocks.get((i, j))
            if block is not None:
                self._blocks.move_to_end((i, j))
                return block
        block = _computed(self._array.blocks[i, j])
        with self._lock:
            if (i, j) not in self._blocks:
                self._blocks[i, j] = block
                self._size += block.nbytes
            while self._size > ROOM:
                self._size -= self._blocks.popitem(last=False)[1].nbytes
        return block


def _computed(array: da.Array) -> NDArray[Any]:
    return np.asarray(array.compute(scheduler="synchronous"))


def _overlap(window: slice, block: NDArray[np.int64]) -> tuple[slice, slice]:
    """What a window and a block have in common, in the window and in the block."""
    first, last = max(window.start, int(block[0])), min(window.stop, int(block[1]))
    return (
        slice(first - window.start, last - window.start),
        slice(first - int(block[0]), last - int(block[0])),
    )
