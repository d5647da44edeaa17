"""What every pixel receives outside the lattices: a separable Gaussian and its own share.

The pixels' marginals, scaled, are kept as an image (N, P). Between two updates it is correlated
along columns and lines, and the result joins the scores' logits, where the next update begins.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

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
NARROW = (0,)

FloatArray = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class DenseTerm:
    """post ⊙ G(pre ⊙ q) − self ⊙ q on a grid of H × W pixels, q (N, L), N = H W."""

    taps: tuple[FloatArray, FloatArray]
    """(2r+1,) each: G along columns and along lines."""
    pre: FloatArray
    """(N,), positive."""
    post: FloatArray
    """(N,)."""
    self_weight: FloatArray
    """(N,)."""
    height: int

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
        factors = self.post, self.self_weight / self.pre
        for first in range(0, self.height, BAND):
            lines = first, min(first + BAND, self.height)
            yield partial(
                _dense_lines,
                width,
                image,
                *self.taps,
                *factors,
                mixing,
                logits,
                out,
                self.height,
                *lines,
            )


@njit(nogil=True, cache=True)
def _dense_lines(
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
    """See ``DenseTerm.tasks``, for lines first..last of the grid."""
    lanes = padded(width)
    length = image.shape[0] // height * lanes
    reach, margin = column_taps.shape[0] // 2, line_taps.shape[0] // 2 * lanes
    columns = np.zeros(length + 2 * margin, np.float32)
    line = np.empty(length, np.float32)
    for y in range(first, last):
        begin, end = max(0, reach - y), min(column_taps.shape[0], height + reach - y)
        _correlate(
            image,
            (y - reach) * length,
            length,
            column_taps[begin:end],
            begin,
            columns,
            margin,
            length,
        )
        _correlate(columns, 0, lanes, line_taps, 0, line, 0, length)
        _join(width, line, image, post, own, mixing, logits, out, y * length)


@njit(inline="always")
def _correlate(
    source: FloatArray,
    start: int,
    step: int,
    taps: FloatArray,
    skipped: int,
    out: FloatArray,
    out_start: int,
    length: int,
) -> None:
    """out_j = Σ_k taps_k source[start + j + (k + skipped) step] for j < length, flat."""
    whole = length // padded(WIDE) * padded(WIDE)
    for j in range(0, whole, padded(WIDE)):
        x = fill(WIDE, 0)
        for k in range(taps.shape[0]):
            x = fma(fill(WIDE, taps[k]), load(WIDE, source, start + j + (k + skipped) * step), x)
        store(out, out_start + j, x)
    for j in range(whole, length, padded(NARROW)):
        x = fill(NARROW, 0)
        for k in range(taps.shape[0]):
            y = load(NARROW, source, start + j + (k + skipped) * step)
            x = fma(fill(NARROW, taps[k]), y, x)
        store(out, out_start + j, x)


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
