"""Embedding, splat, blur, slice and inner products on the GPU.

Rows of values are contiguous and a compile-time number of channels wide. Every sum runs in a
fixed order, without atomics: repeated runs are equal bit for bit. ``device_assert`` checks run
in the tests and with TRITON_DEBUG=1, and compile to nothing otherwise.
"""

# mypy: allow-untyped-defs, allow-untyped-decorators, allow-incomplete-defs
# Triton gives kernels their types when they are launched.

from __future__ import annotations

import triton
import triton.language as tl

UNSPECIALISED = [
    *("num_points", "num_vertices", "image_points"),
    *("features", "neighbours", "vertex", "point", "row_start", "piece_row", "piece_vertex"),
    *("split_vertex", "weight", "slice_weight", "splat_weight", "self_weight"),
]
"""Arguments that never make another variant of a kernel, which takes a second to compile: sizes,
for every move of a slider has other ones, and arrays that are not read 16 bytes at a time."""


@triton.jit(do_not_specialize=UNSPECIALISED)
def embed_kernel(
    features, scale, stride, keys, weight, ranks, num_points, image_points,
    point_stride, axis_stride,
    D: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Embed ROWS points; ``stride`` holds the d strides, the offset and the image's stride.

    A tile holds points by coordinates; what a sequential code would sort is found by comparing
    every pair of coordinates. ``embedding`` is the readable definition.
    """
    order: tl.constexpr = D + 1
    index = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    point = index.to(tl.int64)
    valid = point < num_points
    axis = tl.arange(0, COLUMNS)[None, :]
    real = axis < order

    residual = tl.zeros((ROWS, COLUMNS), tl.float32)
    at = features + point * point_stride
    for j in tl.static_range(D):
        scaled = tl.load(at, mask=valid, other=0.0) * tl.load(scale + j)
        share = tl.where(axis <= j, 1.0, tl.where(axis == j + 1, -1.0 - j, 0.0))
        residual += scaled[:, None] * share
        at += axis_stride
    nearest = tl.floor(residual / order + 0.5)
    residual -= nearest * order
    cell = nearest.to(tl.int32)

    # Rounding each coordinate alone leaves the sum off by some cells; move the largest or the
    # smallest residuals over to the next cell.
    rank = tl.zeros((ROWS, COLUMNS), tl.int32) + tl.sum(tl.where(real, cell, 0), 1)[:, None]
    for j in tl.static_range(order):
        other = tl.sum(tl.where(axis == j, residual, 0.0), 1)[:, None]
        rank += ((other > residual) | ((other == residual) & (axis > j))).to(tl.int32)
    shift = (rank < 0).to(tl.int32) - (rank >= order).to(tl.int32)
    rank += shift * order
    cell += shift
    residual = (residual - shift * order) / order

    steps = tl.load(stride + axis, mask=axis < D, other=0)
    key = tl.sum(cell.to(tl.int64) * steps, 1) + tl.load(stride + D)
    key += (index // image_points).to(tl.int64) * tl.load(stride + D + 1)
    for k in tl.static_range(order):
        # Between neighbouring ranks r-1 and r lies the weight of remainder d+1-r.
        upper = tl.sum(tl.where(real & (rank == D - k), residual, 0.0), 1)
        lower = tl.sum(tl.where(real & (rank == (order - k) % order), residual, 0.0), 1)
        if k == 0:
            share = upper - lower + 1.0
        else:
            share = upper - lower
            key += 1 - tl.sum(tl.where(real & (rank == order - k), steps, 0), 1)
        tl.store(weight + point * order + k, share, mask=valid)
        tl.store(keys + point * order + k, key, mask=valid)
    tl.store(ranks + point[:, None] * order + axis, rank, mask=valid[:, None] & real)


@triton.jit(do_not_specialize=UNSPECIALISED)
def splat_kernel(
    values, point, weight, row_start, piece_row, piece_vertex, z, partial, num_points,
    CHANNELS: tl.constexpr, PIECE: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Sum one piece of a vertex's entries: into z (M, C) if it is all, else partial (P, C)."""
    piece = tl.program_id(0)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = column < CHANNELS
    vertex = tl.load(piece_vertex + piece)
    if vertex >= 0:  # graphs pad the list of pieces with -1
        first = tl.load(piece_row + vertex)
        start = tl.load(row_start + vertex) + (piece - first) * PIECE
        stop = tl.minimum(start + PIECE, tl.load(row_start + vertex + 1))
        total = tl.zeros((ROWS, COLUMNS), tl.float32)
        for at in range(start, stop, ROWS):
            entry = at + tl.arange(0, ROWS)
            valid = entry < stop
            i = tl.load(point + entry, mask=valid, other=0)
            tl.device_assert((i >= 0) & (i < num_points), "splat: point out of range")
            x = tl.load(
                values + i.to(tl.int64)[:, None] * CHANNELS + column[None, :],
                mask=valid[:, None] & inside[None, :],
                other=0.0,
            )
            total += tl.load(weight + entry, mask=valid, other=0.0)[:, None] * x
        row = tl.sum(total, 0)
        if tl.load(piece_row + vertex + 1) == first + 1:
            tl.store(z + vertex.to(tl.int64) * CHANNELS + column, row, mask=inside)
        else:
            tl.store(partial + piece.to(tl.int64) * CHANNELS + column, row, mask=inside)


@triton.jit(do_not_specialize=UNSPECIALISED)
def combine_kernel(
    partial, piece_row, split_vertex, z,
    CHANNELS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Add up the pieces of one split vertex: partial (P, C) -> z (M, C)."""
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = column < CHANNELS
    vertex = tl.load(split_vertex + tl.program_id(0))
    if vertex >= 0:
        stop = tl.load(piece_row + vertex + 1)
        total = tl.zeros((ROWS, COLUMNS), tl.float32)
        for at in range(tl.load(piece_row + vertex), stop, ROWS):
            piece = at + tl.arange(0, ROWS)
            total += tl.load(
                partial + piece.to(tl.int64)[:, None] * CHANNELS + column[None, :],
                mask=(piece < stop)[:, None] & inside[None, :],
                other=0.0,
            )
        tl.store(z + vertex.to(tl.int64) * CHANNELS + column, tl.sum(total, 0), mask=inside)


@triton.jit
def rows_at(z, row, known, column, inside, CHANNELS: tl.constexpr):
    """Rows z[row] as a tile, zero where ``known`` or ``inside`` is false."""
    return tl.load(
        z + row.to(tl.int64)[:, None] * CHANNELS + column[None, :],
        mask=known[:, None] & inside[None, :],
        other=0.0,
    )


@triton.jit(do_not_specialize=UNSPECIALISED)
def blur_kernel(
    z, neighbours, out, num_vertices, tap,
    CHANNELS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """One axis: out = z + tap (left + right); neighbours outside 0..M-1 are missing."""
    vertex = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    valid = vertex < num_vertices
    inside = column < CHANNELS
    left = tl.load(neighbours + 2 * vertex, mask=valid, other=-1)
    right = tl.load(neighbours + 2 * vertex + 1, mask=valid, other=-1)
    around = rows_at(z, left, (left >= 0) & (left < num_vertices), column, inside, CHANNELS)
    around += rows_at(z, right, (right >= 0) & (right < num_vertices), column, inside, CHANNELS)
    own = rows_at(z, vertex, valid, column, inside, CHANNELS)
    tl.store(
        out + vertex.to(tl.int64)[:, None] * CHANNELS + column[None, :],
        own + tap * around,
        mask=valid[:, None] & inside[None, :],
    )


@triton.jit
def interpolate(
    z, vertex, weight, point, valid, column, inside, num_vertices, point_stride, corner_stride,
    CORNERS: tl.constexpr, CHANNELS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Σ_k weight_ik z[vertex_ik] for a tile of points (ROWS, COLUMNS)."""
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    for k in tl.static_range(CORNERS):
        at = point * point_stride + k * corner_stride
        v = tl.load(vertex + at, mask=valid, other=0)
        tl.device_assert((v >= 0) & (v < num_vertices), "slice: vertex out of range")
        b = tl.load(weight + at, mask=valid, other=0.0)
        total += b[:, None] * rows_at(z, v, valid, column, inside, CHANNELS)
    return total


@triton.jit(do_not_specialize=UNSPECIALISED)
def slice_kernel(
    z, vertex, weight, out, num_points, num_vertices, point_stride, corner_stride,
    CORNERS: tl.constexpr, CHANNELS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """y_i = Σ_k b_ik z[vertex_ik] for ROWS points; the strides address vertex and weight."""
    point = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)).to(tl.int64)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    valid = point < num_points
    inside = column < CHANNELS
    total = interpolate(
        z, vertex, weight, point, valid, column, inside, num_vertices, point_stride,
        corner_stride, CORNERS, CHANNELS, ROWS, COLUMNS,
    )  # fmt: skip
    tl.store(
        out + point[:, None] * CHANNELS + column[None, :],
        total,
        mask=valid[:, None] & inside[None, :],
    )


@triton.jit(do_not_specialize=UNSPECIALISED)
def gather_dot_kernel(
    values, z, vertex, out, num_points, num_vertices,
    CORNERS: tl.constexpr, CHANNELS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Inner products x_i · z[vertex_ik] for ROWS points, a block of channels at a time."""
    point = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)).to(tl.int64)
    valid = point < num_points
    for k in tl.static_range(CORNERS):
        v = tl.load(vertex + point * CORNERS + k, mask=valid, other=0)
        tl.device_assert((v >= 0) & (v < num_vertices), "gather_dot: vertex out of range")
        dot = tl.zeros((ROWS,), tl.float32)
        for first in range(0, CHANNELS, COLUMNS):
            column = first + tl.arange(0, COLUMNS)
            inside = column < CHANNELS
            x = rows_at(values, point, valid, column, inside, CHANNELS)
            dot += tl.sum(x * rows_at(z, v, valid, column, inside, CHANNELS), 1)
        tl.store(out + point * CORNERS + k, dot, mask=valid)
