"""Launches of the lattice kernels, shared by single filters and whole mean fields."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol

import torch
import triton
from torch import Tensor

from napari_deepcrf.lattice.triton_build import PIECE
from napari_deepcrf.lattice.triton_kernels import (
    blur_kernel,
    combine_kernel,
    slice_kernel,
    splat_kernel,
)

TILE = 1024
"""Elements of one program's tile, rows by channels."""
MOST_ROWS = 128
MOST_COLUMNS = 64
SPLAT_ROWS = 32
"""Entries, or pieces, that the one warp of a splat's program loads at a time."""


class Segments(Protocol):
    """What a splat reads: E entries grouped by M vertices, cut into pieces; see TritonLattice."""

    @property
    def splat_point(self) -> Tensor: ...
    @property
    def row_start(self) -> Tensor: ...
    @property
    def piece_row(self) -> Tensor: ...
    @property
    def piece_vertex(self) -> Tensor: ...
    @property
    def split_vertex(self) -> Tensor: ...


def on_device_of(tensor: Tensor) -> AbstractContextManager[None]:
    """Make a CUDA tensor's device the one that Triton launches on."""
    guard: AbstractContextManager[None] = torch.cuda.device_of(tensor)  # type: ignore[no-untyped-call]
    return guard


def tile(channels: int) -> tuple[int, int]:
    """Rows and columns of a program's tile for rows of so many channels."""
    columns = min(triton.next_power_of_2(channels), MOST_COLUMNS)
    return min(TILE // columns, MOST_ROWS), columns


def splat(segments: Segments, weight: Tensor, values: Tensor, z: Tensor, partial: Tensor) -> None:
    """Fill z (M, C) from values (N, C); weight (E,) by vertex, scratch partial (P, C)."""
    num_points, channels = values.shape
    columns = tile(channels)[1]
    blocks = triton.cdiv(channels, columns)
    splat_kernel[(segments.piece_vertex.shape[0], blocks)](
        values, segments.splat_point, weight, segments.row_start, segments.piece_row,
        segments.piece_vertex, z, partial, num_points,
        CHANNELS=channels, PIECE=PIECE, ROWS=SPLAT_ROWS, COLUMNS=columns, num_warps=1,
    )  # fmt: skip
    if segments.split_vertex.shape[0]:
        combine_kernel[(segments.split_vertex.shape[0], blocks)](
            partial, segments.piece_row, segments.split_vertex, z,
            CHANNELS=channels, ROWS=SPLAT_ROWS, COLUMNS=columns, num_warps=1,
        )  # fmt: skip


def blur_axis(z: Tensor, neighbours: Tensor, tap: float, out: Tensor) -> None:
    """Fill out (M, C) with z + tap (left + right) for neighbours (M, 2)."""
    num_vertices, channels = z.shape
    rows, columns = tile(channels)
    blur_kernel[(triton.cdiv(num_vertices, rows), triton.cdiv(channels, columns))](
        z, neighbours, out, num_vertices, tap, CHANNELS=channels, ROWS=rows, COLUMNS=columns
    )


def slice_points(
    z: Tensor, vertex: Tensor, weight: Tensor, strides: tuple[int, int], out: Tensor
) -> None:
    """Fill out (N, C) from z (M, C); ``strides`` of vertex and weight by point and corner."""
    num_points, channels = out.shape
    corners = vertex.numel() // num_points
    rows, columns = tile(channels)
    slice_kernel[(triton.cdiv(num_points, rows), triton.cdiv(channels, columns))](
        z, vertex, weight, out, num_points, z.shape[0], *strides,
        CORNERS=corners, CHANNELS=channels, ROWS=rows, COLUMNS=columns,
    )  # fmt: skip
