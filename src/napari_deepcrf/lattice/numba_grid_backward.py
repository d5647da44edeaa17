"""The grid term of the mean field, backwards: from the messages' gradient to everything else.

With G = C R the correlations along columns and lines, which commute and are symmetric, the term is
m = post ⊙ C R (pre ⊙ q) − self ⊙ q. For g, the gradient of m, and a = post ⊙ g:

    ∂q = pre ⊙ R C a − self ⊙ g,   ∂pre = q · R C a,   ∂post = g · R C (pre ⊙ q),   ∂self = −g · q,

and for the tap at offset k, Σ a(x) · (C image)(x + k) along lines, Σ (R a)(y) · image(y + k) along
columns, image = pre ⊙ q. All of it is local to a band of lines but for the reach of C.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from napari_deepcrf.lattice.numba_grid import (
    NARROW,
    WIDE,
    GridTerm,
    filter_columns,
    filter_line,
)
from napari_deepcrf.lattice.numba_simd import (
    Width,
    fill,
    fma,
    load,
    multiply,
    padded,
    store,
    subtract,
    total,
)

ZERO = np.float32(0)

FloatArray = NDArray[np.float32]
DoubleArray = NDArray[np.float64]


class GridGradients(NamedTuple):
    """The gradients of a ``GridTerm``, by band where bands would share them."""

    taps: tuple[DoubleArray, DoubleArray]
    """(bands, 2r+1) each."""
    pre: FloatArray
    post: FloatArray
    self_weight: FloatArray
    mixing: FloatArray
    """(bands, P, P), or (bands, 0, P) without."""

    @staticmethod
    def zeros(term: GridTerm, mixing: FloatArray) -> GridGradients:
        """None so far; ``mixing`` is µ (P, P), or empty without."""
        bands = sum(1 for _ in term.bands())
        columns, lines = (np.zeros((bands, len(taps))) for taps in term.taps)
        return GridGradients(
            (columns, lines),
            np.zeros_like(term.pre),
            np.zeros_like(term.pre),
            np.zeros_like(term.pre),
            np.zeros((bands, *mixing.shape), np.float32),
        )


def outgoing_factor(term: GridTerm) -> FloatArray:
    """(N,) what the gradient of the message is scaled by: post, or one where there is no grid."""
    factor: FloatArray = np.where(term.post > 0, term.post, np.float32(1))
    return factor


def backward_tasks(
    term: GridTerm,
    width: Width,
    image: FloatArray,
    outgoing: FloatArray,
    logits_gradient: FloatArray,
    gradients: GridGradients,
    incoming: FloatArray,
) -> Iterator[Callable[[], None]]:
    """What takes one message back; adds to ``gradients`` and sets ``incoming`` (N, P), ∂q.

    ``image`` (N, P) is pre ⊙ q, ``outgoing`` (N, P) the gradient of the message times
    ``outgoing_factor``; ``logits_gradient`` (N, P) is the message's gradient before µ was applied,
    which only a gradient of µ needs.
    """
    factor = outgoing_factor(term)
    mixed = gradients.mixing.shape[1] > 0
    for band, (here, first, last) in enumerate(term.bands()):
        yield partial(
            _backward_lines,
            width,
            (image[here], outgoing[here], logits_gradient[here if mixed else slice(0)]),
            term.taps,
            (term.pre[here], term.post[here], term.self_weight[here], factor[here]),
            (gradients.pre[here], gradients.post[here], gradients.self_weight[here]),
            (gradients.taps[0][band], gradients.taps[1][band], gradients.mixing[band]),
            incoming[here],
            (term.height, first, last),
        )


@njit(nogil=True, cache=True)
def _backward_lines(
    width: Width,
    images: tuple[FloatArray, FloatArray, FloatArray],
    taps: tuple[FloatArray, FloatArray],
    factors: tuple[FloatArray, FloatArray, FloatArray, FloatArray],
    grad_factors: tuple[FloatArray, FloatArray, FloatArray],
    sums: tuple[DoubleArray, DoubleArray, FloatArray],
    incoming: FloatArray,
    lines: tuple[int, int, int],
) -> None:
    """See ``backward_tasks``, for lines first..last of one image of ``height`` lines."""
    image, outgoing, _ = images
    column_taps, line_taps = taps
    height, first, last = lines
    lanes = padded(width)
    length = image.shape[0] // height * lanes
    reach = column_taps.shape[0] // 2
    margin = line_taps.shape[0] // 2 * lanes
    shape = last - first, length + 2 * margin
    smooth_image, smooth_outgoing = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    filter_columns(image, column_taps, height, first, last, margin, smooth_image)
    filter_columns(outgoing, column_taps, height, first, last, margin, smooth_outgoing)
    plain = np.zeros(shape[1], np.float32)
    both_image, both_outgoing = np.empty(length, np.float32), np.empty(length, np.float32)
    along_line = np.empty(length, np.float32)
    for y in range(first, last):
        start = (y - first) * shape[1]
        filter_line(smooth_image, start, lanes, line_taps, both_image)
        filter_line(smooth_outgoing, start, lanes, line_taps, both_outgoing)
        for j in range(0, length, padded(NARROW)):
            store(plain, margin + j, load(NARROW, outgoing, y * length + j))
        filter_line(plain, 0, lanes, line_taps, along_line)
        for k in range(line_taps.shape[0]):
            sums[1][k] += _dot(plain, margin, smooth_image, start + k * lanes, length)
        for k in range(max(0, reach - y), min(column_taps.shape[0], height + reach - y)):
            sums[0][k] += _dot(along_line, 0, image, (y - reach + k) * length, length)
        smooth = both_image, both_outgoing
        _finish_line(width, images, smooth, factors, grad_factors, sums[2], incoming, y * length)


@njit(inline="always")
def _finish_line(
    width: Width,
    images: tuple[FloatArray, FloatArray, FloatArray],
    smooth: tuple[FloatArray, FloatArray],
    factors: tuple[FloatArray, FloatArray, FloatArray, FloatArray],
    grad_factors: tuple[FloatArray, FloatArray, FloatArray],
    grad_mixing: FloatArray,
    incoming: FloatArray,
    start: int,
) -> None:
    """The pixels of one line, which begins at the flat index ``start`` of the images."""
    image, outgoing, logits_gradient = images
    pre, post, own, factor = factors
    lanes = padded(width)
    for at in range(0, smooth[0].shape[0], lanes):
        i = (start + at) // lanes
        x, a = load(width, image, start + at), load(width, outgoing, start + at)
        received, returned = load(width, smooth[0], at), load(width, smooth[1], at)
        grad_factors[0][i] += total(multiply(x, returned)) / pre[i]
        grad_factors[1][i] += total(multiply(a, received)) / factor[i]
        grad_factors[2][i] -= total(multiply(a, x)) / (factor[i] * pre[i])
        back = multiply(fill(width, pre[i]), returned)
        share = multiply(fill(width, own[i] / factor[i]), a)
        store(incoming, start + at, subtract(back, share))
        if grad_mixing.shape[0] > 0:
            g = load(width, logits_gradient, start + at)
            for c in range(lanes):
                message = post[i] * smooth[0][at + c] - own[i] / pre[i] * image[i, c]
                row = load(width, grad_mixing, c * lanes)
                store(grad_mixing, c * lanes, fma(fill(width, message), g, row))


@njit(inline="always")
def _dot(x: FloatArray, x_at: int, y: FloatArray, y_at: int, count: int) -> np.float64:
    """The inner product of ``count`` numbers, a multiple of 4, from two flat indices on."""
    whole = count // padded(WIDE) * padded(WIDE)
    wide = fill(WIDE, ZERO)
    for j in range(0, whole, padded(WIDE)):
        wide = fma(load(WIDE, x, x_at + j), load(WIDE, y, y_at + j), wide)
    narrow = fill(NARROW, ZERO)
    for j in range(whole, count, padded(NARROW)):
        narrow = fma(load(NARROW, x, x_at + j), load(NARROW, y, y_at + j), narrow)
    return np.float64(total(wide)) + np.float64(total(narrow))
