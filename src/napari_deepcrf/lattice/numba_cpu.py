"""The lattice on the CPU, compiled with Numba: float32, deterministic, without the GIL.

Compiled code is cached on disk. ``torch_ops`` is the readable definition of every function here.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray
from torch import Tensor

from napari_deepcrf.lattice.embedding import axis_scales
from napari_deepcrf.lattice.lattice import Lattice, feature_scale
from napari_deepcrf.lattice.numba_build import (
    add_ring,
    find_neighbours,
    intern_points,
    rows_by_vertex,
)
from napari_deepcrf.lattice.numba_fused import mean_field

__all__ = ["blur", "build", "gather_dot", "mean_field", "slice", "splat"]

KEY_LIMIT = 2**62
CELL_LIMIT = 2**22
"""Largest elevated coordinate at which a cell is still exact in float32."""

FloatArray = NDArray[np.float32]
Int32Array = NDArray[np.int32]


def build(features: Tensor, *, ring: bool, passes: int) -> Lattice:
    """Embed features (N, d) float32 and connect the occupied vertices; see ``Lattice.build``."""
    points = _array(features, "features")
    lowest, highest = (bound.numpy() for bound in torch.aminmax(features, dim=0))
    scale, stride, offset = numbering(lowest, highest, passes)
    shape = (points.shape[0], points.shape[1] + 1)
    vertex, weight, rank = (np.empty(shape, t) for t in (np.int32, np.float32, np.int8))
    slots, keys, count = intern_points(points, scale, stride, offset, vertex, weight, rank)
    if ring:
        slots, keys, count = add_ring(slots, keys, count, stride)
    neighbours = find_neighbours(slots, keys, count, stride)
    row_start, entry = rows_by_vertex(vertex, count)
    arrays = (vertex, weight, rank, neighbours, row_start, entry)
    names = ("vertex", "weight", "rank", "neighbours", "row_start", "entry")
    tensors: dict[str, Any] = dict(zip(names, map(torch.from_numpy, arrays), strict=True))
    return Lattice(**tensors, passes=passes, backend="numba")


def numbering(
    lowest: NDArray[Any], highest: NDArray[Any], passes: int
) -> tuple[tuple[Any, ...], tuple[Any, ...], Any]:
    """How features within given bounds (d,) map to keys: scale (d), stride (d) and offset.

    Raises
    ------
    ValueError
        If the features spread over more cells than a key can number.
    """
    d = len(lowest)
    scale = (np.array(axis_scales(d)) * feature_scale(passes)).astype(np.float32)
    low, high = lowest * scale.astype(float), highest * scale.astype(float)
    stride, size, offset = [], d + 1, 0
    for j in range(d):
        below = low[j:].sum() - (j * high[j - 1] if j else 0.0)
        above = high[j:].sum() - (j * low[j - 1] if j else 0.0)
        if max(-below, above) > CELL_LIMIT:
            raise ValueError(_too_small(f"a coordinate of {max(-below, above):.3g}"))
        # Two cells for rounding and wrapping, two for the ring and its neighbours.
        first, last = math.floor(below / (d + 1)) - 4, math.ceil(above / (d + 1)) + 4
        stride.append(np.int64(size))
        offset -= first * size
        size *= last - first
        if size >= KEY_LIMIT:
            raise ValueError(_too_small("too many cells"))
    return tuple(scale), tuple(stride), np.int64(offset)


def splat(lattice: Lattice, values: Tensor) -> Tensor:
    """(N, C) -> (M, C): the points in order, so that the sum does not depend on anything else."""
    vertex, weight = lattice.vertex.numpy(), lattice.weight.numpy()
    z = np.zeros((lattice.num_vertices, values.shape[1]), np.float32)
    _splat(vertex, weight, _array(values, "values"), z)
    return torch.from_numpy(z)


def blur(lattice: Lattice, z: Tensor, *, reverse: bool) -> Tensor:
    """(M, C) -> (M, C), along axes 0..d; each further pass the other way round."""
    source = _array(z, "z")
    axes, tap = range(lattice.dim + 1), np.float32(lattice.tap)
    buffers = (np.empty_like(source), np.empty_like(source))
    turn = 0
    tap = np.float32(lattice.tap)
    descending = reverse and lattice.passes % 2 == 1
    for number in range(lattice.passes):
        for axis in reversed(axes) if descending != (number % 2 == 1) else axes:
            _blur_axis(lattice.neighbours[axis].numpy(), tap, source, buffers[turn])
            source, turn = buffers[turn], 1 - turn
    return torch.from_numpy(source)


def slice(lattice: Lattice, z: Tensor) -> Tensor:  # noqa: A001 - the field's name
    """(M, C) -> (N, C), barycentric interpolation of the vertices' values."""
    out = np.empty((lattice.num_points, z.shape[1]), np.float32)
    _slice(lattice.vertex.numpy(), lattice.weight.numpy(), _array(z, "z"), out)
    return torch.from_numpy(out)


def gather_dot(lattice: Lattice, values: Tensor, z: Tensor) -> Tensor:
    """(N, C), (M, C) -> (N, d+1): the inner products x_i · z_v(i,k)."""
    vertex = lattice.vertex.numpy()
    out = np.empty(vertex.shape, np.float32)
    _gather_dot(vertex, _array(values, "values"), _array(z, "z"), out)
    return torch.from_numpy(out)


def _array(tensor: Tensor, name: str) -> FloatArray:
    if tensor.dtype != torch.float32 or tensor.device.type != "cpu":
        raise TypeError(
            f"{name}: the Numba kernels expect float32 on the CPU, "
            f"got {tensor.dtype} on {tensor.device}"
        )
    array: FloatArray = tensor.detach().contiguous().numpy()
    return array


def _too_small(what: str) -> str:
    return f"features: kernel widths too small, lattice keys leave their range ({what})"


@njit(nogil=True, cache=True, fastmath={"contract"})
def _splat(vertex: Int32Array, weight: FloatArray, values: FloatArray, z: FloatArray) -> None:
    for i in range(vertex.shape[0]):
        for k in range(vertex.shape[1]):
            v, b = vertex[i, k], weight[i, k]
            for c in range(values.shape[1]):
                z[v, c] += b * values[i, c]


@njit(nogil=True, cache=True, fastmath={"contract"})
def _blur_axis(neighbours: Int32Array, tap: np.float32, z: FloatArray, out: FloatArray) -> None:
    missing = z.shape[0]
    for v in range(z.shape[0]):
        left, right = neighbours[v, 0], neighbours[v, 1]
        if left != missing and right != missing:
            for c in range(z.shape[1]):
                out[v, c] = z[v, c] + tap * (z[left, c] + z[right, c])
        elif left != missing or right != missing:
            only = left if right == missing else right
            for c in range(z.shape[1]):
                out[v, c] = z[v, c] + tap * z[only, c]
        else:
            for c in range(z.shape[1]):
                out[v, c] = z[v, c]


@njit(nogil=True, cache=True, fastmath={"contract"})
def _slice(vertex: Int32Array, weight: FloatArray, z: FloatArray, out: FloatArray) -> None:
    for i in range(vertex.shape[0]):
        for c in range(z.shape[1]):
            out[i, c] = np.float32(0)
        for k in range(vertex.shape[1]):
            v, b = vertex[i, k], weight[i, k]
            for c in range(z.shape[1]):
                out[i, c] += b * z[v, c]


@njit(nogil=True, cache=True, fastmath={"contract", "reassoc"})
def _gather_dot(vertex: Int32Array, values: FloatArray, z: FloatArray, out: FloatArray) -> None:
    for i in range(vertex.shape[0]):
        for k in range(vertex.shape[1]):
            v = vertex[i, k]
            dot = np.float32(0)
            for c in range(values.shape[1]):
                dot += values[i, c] * z[v, c]
            out[i, k] = dot
