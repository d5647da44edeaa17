"""The lattice on the CPU, compiled with Numba: float32, deterministic, without the GIL.

Compiled code is cached on disk. ``torch_ops`` is the readable definition of every function here.
"""

from __future__ import annotations

from functools import partial
from typing import Any, cast

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray
from torch import Tensor

from napari_deepcrf.lattice.lattice import Lattice
from napari_deepcrf.lattice.numba_fused import mean_field
from napari_deepcrf.lattice.numba_lattice import NumbaLattice, build_lattice
from napari_deepcrf.lattice.numba_pool import run_all

__all__ = ["blur", "build", "gather_dot", "mean_field", "slice", "splat"]

FloatArray = NDArray[np.float32]
Int32Array = NDArray[np.int32]


def build(features: Tensor, *, ring: bool, passes: int, images: int) -> Lattice:
    """Embed features (N, d) float32 and connect the occupied vertices; see ``Lattice.build``."""
    return build_lattice(_array(features.T, "features"), ring=ring, passes=passes, images=images)


def splat(lattice: Lattice, values: Tensor) -> Tensor:
    """(N, C) -> (M, C), the points in an order that does not depend on anything else."""
    x, weight = _array(values, "values"), lattice.weight.numpy()
    if x.shape[1] == 1:
        return torch.from_numpy(_splat_one(cast("NumbaLattice", lattice), x[:, 0])[:, None])
    z = np.zeros((lattice.num_vertices, values.shape[1]), np.float32)
    _splat(lattice.vertex.numpy(), weight, x, z)
    return torch.from_numpy(z)


def blur(lattice: Lattice, z: Tensor, *, reverse: bool) -> Tensor:
    """(M, C) -> (M, C), along axes 0..d; each further pass the other way round."""
    source = _array(z, "z")
    buffers = np.empty_like(source), np.empty_like(source)
    tap = np.float32(lattice.tap)
    for turn, axis in enumerate(lattice.blur_order(reverse=reverse)):
        target = buffers[turn % 2]
        _blur_axis(lattice.neighbours[axis].numpy(), tap, source, target)
        source = target
    return torch.from_numpy(source)


def slice(lattice: Lattice, z: Tensor) -> Tensor:  # noqa: A001 - the field's name
    """(M, C) -> (N, C), barycentric interpolation of the vertices' values."""
    x, weight = _array(z, "z"), lattice.weight.numpy()
    if x.shape[1] == 1:
        return torch.from_numpy(_slice_one(cast("NumbaLattice", lattice), x[:, 0])[:, None])
    out = np.empty((lattice.num_points, z.shape[1]), np.float32)
    _slice(lattice.vertex.numpy(), weight, x, out)
    return torch.from_numpy(out)


def gather_dot(lattice: Lattice, values: Tensor, z: Tensor) -> Tensor:
    """(N, C), (M, C) -> (N, d+1): the inner products x_i · z_v(i,k)."""
    vertex = lattice.vertex.numpy()
    out = np.empty(vertex.shape, np.float32)
    _gather_dot(vertex, _array(values, "values"), _array(z, "z"), out)
    return torch.from_numpy(out)


def _splat_one(lattice: NumbaLattice, values: FloatArray) -> FloatArray:
    """A single channel, as for row sums: (N,) -> (M,)."""
    weight = lattice.weight.numpy()
    rows = np.zeros(len(lattice.row_vertex), np.float32)
    run_all(
        partial(_splat_rows, lattice.row[p], weight[p], values[p], lattice.of_chunk(rows, c))
        for c, p in enumerate(lattice.chunks())
    )
    z = np.empty(lattice.num_vertices, np.float32)
    _sum_rows(lattice.vertex_row, lattice.rows, rows, z)
    return z


def _slice_one(lattice: NumbaLattice, z: FloatArray) -> FloatArray:
    """A single channel: (M,) -> (N,)."""
    weight, vertex = lattice.weight.numpy(), lattice.row_vertex
    out = np.empty(lattice.num_points, np.float32)
    run_all(
        partial(_slice_rows, lattice.row[p], weight[p], lattice.of_chunk(vertex, c), z, out[p])
        for c, p in enumerate(lattice.chunks())
    )
    return out


def _array(tensor: Tensor, name: str) -> FloatArray:
    if tensor.dtype != torch.float32 or tensor.device.type != "cpu":
        raise TypeError(
            f"{name}: the Numba kernels expect float32 on the CPU, "
            f"got {tensor.dtype} on {tensor.device}"
        )
    array: FloatArray = tensor.detach().contiguous().numpy()
    return array


@njit(nogil=True, cache=True, fastmath={"contract"})
def _splat(vertex: Int32Array, weight: FloatArray, values: FloatArray, z: FloatArray) -> None:
    for i in range(vertex.shape[0]):
        for k in range(vertex.shape[1]):
            v, b = vertex[i, k], weight[i, k]
            for c in range(values.shape[1]):
                z[v, c] += b * values[i, c]


@njit(nogil=True, cache=True, fastmath={"contract"})
def _splat_rows(
    row: NDArray[Any], weight: FloatArray, values: FloatArray, rows: FloatArray
) -> None:
    """One chunk's points (N_c,) to its rows (R_c,)."""
    for i in range(row.shape[0]):
        for k in range(row.shape[1]):
            rows[row[i, k]] += weight[i, k] * values[i]


@njit(nogil=True, cache=True)
def _sum_rows(vertex_row: Int32Array, entry: Int32Array, rows: FloatArray, z: FloatArray) -> None:
    """All rows (R,) to vertices (M,)."""
    for v in range(z.shape[0]):
        x = np.float32(0)
        for e in range(vertex_row[v], vertex_row[v + 1]):
            x += rows[entry[e]]
        z[v] = x


@njit(nogil=True, cache=True, fastmath={"contract"})
def _slice_rows(
    row: NDArray[Any], weight: FloatArray, vertex: Int32Array, z: FloatArray, out: FloatArray
) -> None:
    """Vertices z (M,) to one chunk's points (N_c,) by its rows' vertices (R_c,)."""
    rows = z[vertex]
    for i in range(row.shape[0]):
        x = np.float32(0)
        for k in range(row.shape[1]):
            x += weight[i, k] * rows[row[i, k]]
        out[i] = x


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
