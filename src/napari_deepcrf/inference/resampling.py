"""Images reduced window by window, and coarse maps interpolated at the pixels that ask."""

from __future__ import annotations

import numpy as np
import torch
from dask.base import compute
from dask.delayed import delayed
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from napari_deepcrf.inference.lazy_image import LazyImage
from napari_deepcrf.inference.tiling import Span

STRIDE = 8
"""Pixels of a reduced image from one of the network's scores to the next."""
BAND = 1 << 21
"""Pixels of the image that a thread reduces at a time."""

FloatArray = NDArray[np.float32]


def reduce_window(image: LazyImage, size: tuple[int, int], rows: Span, columns: Span) -> FloatArray:
    """A window (h, w, 3) of the image resized to ``size``, as PyTorch's antialiased bilinear.

    The image is read in bands, so that memory does not grow with the reduction.
    """
    (y, down), (x, along) = (
        _reduction(n, m, span)
        for n, m, span in zip(image.shape, size, (rows, columns), strict=True)
    )
    out = np.zeros((rows[1] - rows[0], (columns[1] - columns[0]) * 3), np.float32)
    across, by_row = along.tocsc(), down.tocsc()
    height = max(1, BAND // (x[1] - x[0]))
    threads = torch.get_num_threads()

    def narrowed(first: int) -> FloatArray:
        """The band from line ``first`` on, reduced along its lines: (lines, columns * 3)."""
        band = image.read(slice(first, min(first + height, y[1])), slice(*x))
        narrow = across @ band.transpose(1, 0, 2).reshape(x[1] - x[0], -1)
        by_line: FloatArray = narrow.reshape(-1, len(band), 3).transpose(1, 0, 2)
        return by_line.reshape(len(band), -1)

    lines = range(y[0], y[1], height)
    for group in (lines[k : k + threads] for k in range(0, len(lines), threads)):
        tasks = [delayed(narrowed, pure=False)(first) for first in group]
        bands = compute(*tasks, scheduler="threads", num_workers=threads)
        for first, narrow in zip(group, bands, strict=True):
            out += by_row[:, first - y[0] : first - y[0] + len(narrow)] @ narrow
    return out.reshape(rows[1] - rows[0], -1, 3)


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
