"""Images reduced window by window, and coarse maps interpolated at the pixels that ask."""

from __future__ import annotations

import numpy as np
from dask.base import compute
from dask.delayed import delayed
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from napari_deepcrf.inference.lazy_image import LazyImage
from napari_deepcrf.inference.tiling import FloatArray, Span

STRIDE = 8
"""Pixels of a reduced image from one of the network's scores to the next."""
BAND = 1 << 21
"""Pixels of the image that a thread reduces at a time."""


def reduce_window(
    image: LazyImage, size: tuple[int, int], rows: Span, columns: Span, *, threads: int = 1
) -> FloatArray:
    """A window (h, w, 3) of the image resized to ``size``, as PyTorch's antialiased bilinear.

    The image is read in bands, ``threads`` at once, so that memory does not grow with the
    reduction.
    """
    (y, down), (x, along) = (
        _reduction(n, m, span)
        for n, m, span in zip(image.shape, size, (rows, columns), strict=True)
    )
    out = np.zeros((rows[1] - rows[0], columns[1] - columns[0], 3), np.float32)
    by_line = down.tocsc()
    height = max(1, BAND // (x[1] - x[0]))

    def share(first: int) -> tuple[slice, FloatArray]:
        """Which rows of the window the band from line ``first`` on adds to, and what."""
        last = min(first + height, y[1])
        weights = by_line[:, first - y[0] : last - y[0]].tocsr()
        touched = np.flatnonzero(np.diff(weights.indptr))
        reached = slice(int(touched[0]), int(touched[-1]) + 1)
        band = image.read(slice(first, last), slice(*x))
        low = weights[reached] @ band.reshape(last - first, -1)
        lines = low.reshape(len(low), -1, 3).transpose(1, 0, 2).reshape(x[1] - x[0], -1)
        narrow: FloatArray = (along @ lines).reshape(out.shape[1], len(low), 3)
        return reached, narrow.transpose(1, 0, 2)

    bands = range(y[0], y[1], height)
    for group in (bands[k : k + threads] for k in range(0, len(bands), threads)):
        if threads == 1:
            shares = [share(first) for first in group]
        else:
            tasks = [delayed(share, pure=False)(first) for first in group]
            shares = compute(*tasks, scheduler="threads", num_workers=threads)
        for reached, values in shares:
            out[reached] += values
    return out


def _reduction(size: int, reduced: int, span: Span) -> tuple[Span, csr_matrix]:
    """The pixels that reduced pixels ``span`` come from, and their weights (reduced, pixels).

    A triangle as wide as the reduction, normalised, about the centre of every reduced pixel.
    """
    scale = size / reduced
    support = max(scale, 1.0)
    centre = scale * (np.arange(*span) + 0.5)
    first = np.maximum((centre - support + 0.5).astype(np.int64), 0)
    last = np.minimum((centre + support + 0.5).astype(np.int64), size)
    width = int((last - first).max())
    place = first[:, None] + np.arange(width)
    weight = np.maximum(0, 1 - np.abs(place + 0.5 - centre[:, None]) / support)
    weight *= place < last[:, None]
    weight /= weight.sum(1, keepdims=True)
    begin, end = int(first.min()), int(last.max())
    entries = place < end
    row = np.broadcast_to(np.arange(len(centre))[:, None], place.shape)[entries]
    values = weight[entries].astype(np.float32), (row, place[entries] - begin)
    return (begin, end), csr_matrix(values, shape=(len(centre), end - begin))


def interpolation(places: NDArray[np.int64], size: int, coarse: int) -> tuple[Span, csr_matrix]:
    """The scores that places on an axis lie between, and bilinear weights (places, scores)."""
    source = np.maximum((places + 0.5) * (coarse / size) - 0.5, 0)
    lower = np.minimum(source.astype(np.int64), coarse - 1)
    upper = np.minimum(lower + 1, coarse - 1)
    share = (source - lower).astype(np.float32)
    begin, end = int(lower[0]), int(upper[-1]) + 1
    row = np.arange(len(places))
    values = np.concatenate([1 - share, share])
    entries = np.concatenate([row, row]), np.concatenate([lower, upper]) - begin
    return (begin, end), csr_matrix((values, entries), shape=(len(places), end - begin))
