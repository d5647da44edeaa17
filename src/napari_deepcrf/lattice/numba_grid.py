"""The grid term of the fused mean field: a separable Gaussian, less every pixel's own share.

It is what pixels receive outside the lattices. Their marginals, scaled, are kept as an image
(N, P). Between two updates it is correlated along columns and lines, and the result joins the
logits of the scores, where the next update begins.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from napari_deepcrf.lattice.numba_simd import (
    LOG2_E,
    Width,
    fill,
    fma,
    load,
    padded,
    store,
)

BAND = 16
"""Lines in one task."""
WIDE = (0,) * 16
"""64 lanes: eight registers of sums that do not wait for each other."""
NARROW = (0,)
"""4 lanes: what is left of a line, whose length is a multiple of 4."""

FloatArray = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class GridTerm:
    """post ⊙ G(pre ⊙ q) − self ⊙ q on grids of H × W pixels, q (N, L), N = images H W."""

    taps: tuple[FloatArray, FloatArray]
    """(2r+1,) each: G along columns and along lines."""
    pre: FloatArray
    """(N,), positive."""
    post: FloatArray
    """(N,)."""
    self_weight: FloatArray
    """(N,)."""
    height: int
    images: int = 1

    def bands(self) -> Iterator[tuple[slice, int, int]]:
        """An image's pixels, and the first and last line of a band of it, for all bands."""
        pixels = len(self.pre) // self.images
        for image in range(self.images):
            for first in range(0, self.height, BAND):
                last = min(first + BAND, self.height)
                yield slice(image * pixels, (image + 1) * pixels), first, last

    def tasks(
        self,
        width: Width,
        image: FloatArray,
        mixing: FloatArray,
        logits: FloatArray,
        out: FloatArray,
    ) -> Iterator[Callable[[], None]]:
        """What computes out = logits + the term times ``mixing`` (base 2) from image = pre ⊙ q.

        ``image``, ``logits`` and ``out`` are (N, P), ``mixing`` (P, P) or empty for the identity.
        """
        own = self.self_weight / self.pre
        for here, first, last in self.bands():
            yield partial(
                _grid_lines,
                width,
                image[here],
                *self.taps,
                self.post[here],
                own[here],
                mixing,
                logits[here],
                out[here],
                self.height,
                first,
                last,
            )


@njit(nogil=True, cache=True)
def _grid_lines(
    width: Width,
    image: FloatArray,
    column_taps: FloatArray,
    line_taps: FloatArray,
    post: FloatArray,
    own: FloatArray,
    mixing: FloatArray,
    logits: FloatArray,
    out: FloatArray,
    height: int,
    first: int,
    last: int,
) -> None:
    """See ``GridTerm.tasks``, for lines first..last of the grid."""
    lanes = padded(width)
    length = image.shape[0] // height * lanes
    margin = line_taps.shape[0] // 2 * lanes
    columns = np.zeros((last - first, length + 2 * margin), np.float32)
    line = np.empty(length, np.float32)
    filter_columns(image, column_taps, height, first, last, margin, columns)
    for y in range(first, last):
        filter_line(columns, (y - first) * columns.shape[1], lanes, line_taps, line)
        _join(width, line, image, post, own, mixing, logits, out, y * length)


@njit(inline="always")
def filter_columns(
    image: FloatArray,
    taps: FloatArray,
    height: int,
    first: int,
    last: int,
    margin: int,
    out: FloatArray,
) -> None:
    """Correlate lines first..last of an image (N, P) along its columns into the lines of ``out``.

    ``out`` has a margin of so many zeros at either end of its lines. A strip of columns at a time,
    which stays in the cache for all lines.
    """
    length = out.shape[1] - 2 * margin
    whole = length // padded(WIDE) * padded(WIDE)
    for j in range(0, whole, padded(WIDE)):
        for y in range(first, last):
            x = _column(WIDE, image, y, j, length, height, taps)
            store(out, (y - first) * out.shape[1] + margin + j, x)
    for j in range(whole, length, padded(NARROW)):
        for y in range(first, last):
            x = _column(NARROW, image, y, j, length, height, taps)
            store(out, (y - first) * out.shape[1] + margin + j, x)


@njit(inline="always")
def filter_line(
    source: FloatArray, start: int, step: int, taps: FloatArray, out: FloatArray
) -> None:
    """Correlate a line with margins, from the flat index ``start`` on, into ``out``."""
    whole = out.shape[0] // padded(WIDE) * padded(WIDE)
    for j in range(0, whole, padded(WIDE)):
        store(out, j, _correlate(WIDE, source, start + j, step, taps, 0, len(taps)))
    for j in range(whole, out.shape[0], padded(NARROW)):
        store(out, j, _correlate(NARROW, source, start + j, step, taps, 0, len(taps)))


@njit(inline="always")
def _column(
    width: Width,
    image: FloatArray,
    y: int,
    j: int,
    length: int,
    height: int,
    taps: FloatArray,
) -> Any:
    """The correlation along columns at line y, from number j of the line on; zero outside."""
    reach = taps.shape[0] // 2
    begin, end = max(0, reach - y), min(taps.shape[0], height + reach - y)
    return _correlate(width, image, (y - reach) * length + j, length, taps, begin, end)


@njit(inline="always")
def _correlate(
    width: Width,
    source: FloatArray,
    start: int,
    step: int,
    taps: FloatArray,
    begin: int,
    end: int,
) -> Any:
    """Σ_k taps_k source[start + k step], k = begin..end, a vector."""
    x = fill(width, 0)
    for k in range(begin, end):
        x = fma(fill(width, taps[k]), load(width, source, start + k * step), x)
    return x


@njit(inline="always")
def _join(
    width: Width,
    line: FloatArray,
    image: FloatArray,
    post: FloatArray,
    own: FloatArray,
    mixing: FloatArray,
    logits: FloatArray,
    out: FloatArray,
    start: int,
) -> None:
    """One line of out (N, P), which begins at the flat index ``start``."""
    lanes = padded(width)
    scale = fill(width, LOG2_E)
    for at in range(0, line.shape[0], lanes):
        i = (start + at) // lanes
        x = fma(fill(width, -own[i]), load(width, image, start + at), fill(width, 0))
        x = fma(fill(width, post[i]), load(width, line, at), x)
        if mixing.shape[0] > 0:
            store(line, at, x)
            x = fill(width, 0)
            for c in range(lanes):
                x = fma(fill(width, line[at + c]), load(width, mixing, c * lanes), x)
        store(out, start + at, fma(scale, x, load(width, logits, start + at)))
