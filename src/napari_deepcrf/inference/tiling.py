"""How an image is cut into tiles, and what of its surroundings a tile needs.

A pixel's label depends on all pixels within reach of the widest kernel. Pixels that are only needed
for their messages are taken thinly: on a coarse grid, each with the mass of the cell it stands
for. A Gaussian of width θ sampled every s pixels is summed with a relative error of about
2 exp(-2 π² θ²/s²), so that the narrowest kernel that a grid may serve is 1.5 s wide. Narrower
kernels get a ring of every pixel around the tile instead.

      halo     · · · · · · · ·     four widths of the widest kernel, every s-th pixel
      ring     · ┌─────────┐ ·     four widths of the kernels below 1.5 s, every pixel
      core     · │ ┌─────┐ │ ·     the tile itself: its labels are kept
               · │ └─────┘ │ ·
               · └─────────┘ ·
               · · · · · · · ·
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

HALO_WIDTHS = 4.0
"""A Gaussian has 0.006 % of its mass beyond four widths."""
RING_WIDTHS = 4.0
RING_SHARE = 0.25
RING_LEAST = 24
"""The ring is at least this share of the widest kernel's width, and so many pixels."""
GRID_WIDTHS = 16.0
"""The widest kernel is sampled at least this many times within one width."""
NARROWEST = 1.5

_Value = TypeVar("_Value", bound=np.generic)
Span = tuple[int, int]
"""First index, and the one behind the last."""


@dataclass(frozen=True)
class Tile:
    """A rectangle of an image whose labels are computed in one go."""

    number: int
    rows: Span
    columns: Span

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W)."""
        return self.rows[1] - self.rows[0], self.columns[1] - self.columns[0]

    @property
    def region(self) -> tuple[slice, slice]:
        """Index of the tile in an (H, W) array."""
        return slice(*self.rows), slice(*self.columns)


def cut(shape: tuple[int, int], size: int) -> list[Tile]:
    """The tiles of an H × W image, ``size`` pixels a side but for the last of a row or column."""
    spans = [[(a, min(a + size, n)) for a in range(0, n, size)] for n in shape]
    pairs = [(rows, columns) for rows in spans[0] for columns in spans[1]]
    return [Tile(number, rows, columns) for number, (rows, columns) in enumerate(pairs)]


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """What around a tile is read: all of a ring, and a grid over a halo, in pixels."""

    ring: int
    halo: int
    step: int
    """Distance of the grid's points, a power of two; 1 where every pixel is taken."""

    @classmethod
    def of(cls, widths: Sequence[float], *, thin: bool = True) -> Surroundings:
        """Those that kernels of these widths over positions need, in pixels.

        Without ``thin`` the halo is taken whole, for kernels that only filter full grids.
        """
        halo = math.ceil(HALO_WIDTHS * max(widths))
        step = 2 ** max(0, math.floor(math.log2(max(widths) / GRID_WIDTHS))) if thin else 1
        if step == 1:
            return cls(ring=halo, halo=halo, step=1)
        narrow = [width for width in widths if width < NARROWEST * step]
        ring = max(RING_WIDTHS * max(narrow, default=0.0), RING_SHARE * max(widths), RING_LEAST)
        ring = math.ceil(ring / step) * step
        return cls(ring=ring, halo=max(halo, ring), step=step)

    def points(self, tile: Tile, shape: tuple[int, int]) -> TilePoints:
        """The pixels that a tile of an H × W image is computed from."""
        near = tuple(
            _widened(span, self.ring, n)
            for span, n in zip((tile.rows, tile.columns), shape, strict=True)
        )
        if self.step == 1:
            none = np.zeros(0, np.int64)
            return TilePoints(
                tile, near[0], near[1], none, none, np.zeros((0, 0), bool), none, none
            )
        far = [
            _grid(_widened(span, self.halo, n), self.step, n)
            for span, n in zip((tile.rows, tile.columns), shape, strict=True)
        ]
        (rows, heights), (columns, lengths) = far
        outside = ~(_within(rows, near[0])[:, None] & _within(columns, near[1]))
        return TilePoints(tile, near[0], near[1], rows, columns, outside, heights, lengths)


@dataclass(frozen=True, eq=False)
class TilePoints:
    """N pixels: a full rectangle, row by row, then those of a grid outside of it."""

    tile: Tile
    rows: Span
    columns: Span
    """The rectangle: the tile and its ring."""
    grid_rows: NDArray[np.int64]
    grid_columns: NDArray[np.int64]
    outside: NDArray[np.bool_]
    """(grid rows, grid columns): which of the grid's points are taken."""
    cell_heights: NDArray[np.int64]
    cell_widths: NDArray[np.int64]
    """Size of the cell that every row and column of the grid stands for."""

    @property
    def near_shape(self) -> tuple[int, int]:
        """(h, w) of the rectangle."""
        return self.rows[1] - self.rows[0], self.columns[1] - self.columns[0]

    @property
    def count(self) -> int:
        """N."""
        return math.prod(self.near_shape) + int(self.outside.sum())

    def positions(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """(N,) rows and (N,) columns, counted from the rectangle's first pixel."""
        near = np.meshgrid(*(np.arange(n) for n in self.near_shape), indexing="ij")
        far = np.meshgrid(self.grid_rows, self.grid_columns, indexing="ij")
        rows, columns = (
            np.concatenate([a.ravel(), b[self.outside] - first]).astype(np.float32)
            for a, b, first in zip(near, far, (self.rows[0], self.columns[0]), strict=True)
        )
        return rows, columns

    def mass(self) -> NDArray[np.float32]:
        """(N,) how many pixels of the image every point stands for."""
        cells = self.cell_heights[:, None] * self.cell_widths
        ones = np.ones(math.prod(self.near_shape), np.float32)
        return np.concatenate([ones, cells[self.outside].astype(np.float32)])

    @property
    def window(self) -> tuple[Span, Span]:
        """Rows and columns that hold all of the points."""
        if not self.outside.any():
            return self.rows, self.columns
        return tuple(
            (min(span[0], int(grid[0])), max(span[1], int(grid[-1]) + 1))
            for span, grid in (
                (self.rows, self.grid_rows),
                (self.columns, self.grid_columns),
            )
        )  # type: ignore[return-value]

    def join(self, near: NDArray[np.float32], far: NDArray[np.float32]) -> NDArray[np.float32]:
        """(C, N) values from the rectangle's (C, h, w) and the grid's (C, rows, columns)."""
        flat = near.reshape(len(near), -1)
        return np.concatenate([flat, far[:, self.outside]], axis=1)

    def core(self, values: NDArray[_Value]) -> NDArray[_Value]:
        """(H, W) of the tile itself from (N,) values."""
        h, w = self.near_shape
        (top, left), (height, width) = (self.tile.rows[0], self.tile.columns[0]), self.tile.shape
        y, x = top - self.rows[0], left - self.columns[0]
        return values[: h * w].reshape(h, w)[y : y + height, x : x + width]


def _widened(span: Span, by: int, size: int) -> Span:
    return max(0, span[0] - by), min(size, span[1] + by)


def _grid(span: Span, step: int, size: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The middle and the length of every cell, ``step`` long, that a span touches."""
    first = np.arange(span[0] // step * step, span[1], step)
    last = np.minimum(first + step, size)
    return (first + last) // 2, last - first


def _within(places: NDArray[np.int64], span: Span) -> NDArray[np.bool_]:
    return (places >= span[0]) & (places < span[1])
