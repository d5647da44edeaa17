"""How an image is cut into tiles, and what of its surroundings a tile needs.

A pixel's label depends on all pixels within reach of the widest kernel. Those that are only needed
for their messages are taken thinly, the more so the farther they are: a zone has every 2ᵏ-th pixel
of every 2ᵏ-th row, each with the mass of the cell that it stands for. A Gaussian of width θ sampled
every s pixels is summed with a relative error of about 2 exp(-2 π² θ²/s²), so that a kernel must be
at least 1.5 s wide. A narrower one is widened to that beyond the ring, where labels are not kept.

      zones    · · · · · · · ·     to four widths of the widest kernel, thinner outwards
      ring     · ┌─────────┐ ·     every pixel, at least four widths of the narrow kernels
      core     · │ ┌─────┐ │ ·     the tile itself: its labels are kept
               · │ └─────┘ │ ·
               · └─────────┘ ·
               · · · · · · · ·
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

HALO_WIDTHS = 4.0
"""A Gaussian has 0.006 % of its mass beyond four widths."""
RING_WIDTHS = 4.0
RING_LEAST = 24
"""The ring is at least so many pixels."""
ZONE_WIDTHS = (0.6, 2.0, 3.0)
"""How many of the widest kernel's widths every pixel, every 2nd and every 4th is taken for."""
SAMPLES = 10.0
"""The widest kernel is sampled at least so many times within one width."""
NARROWEST = 1.5
"""The least width of a kernel over a grid, in steps of that."""

_Value = TypeVar("_Value", bound=np.generic)
FloatArray = NDArray[np.float32]
Labels = NDArray[np.uint8]
Span = tuple[int, int]
"""First index, and the one behind the last."""
Spans = tuple[Span, Span]
"""Rows and columns of a rectangle."""


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
    """What around a tile is read."""

    reach: tuple[int, ...]
    """Pixels around a tile: entry k is where every 2ᵏ-th pixel ends to be taken."""

    @property
    def ring(self) -> int:
        """How far around a tile every pixel is taken."""
        return self.reach[0]

    @property
    def halo(self) -> int:
        """How far around a tile anything is taken."""
        return self.reach[-1]

    @property
    def step(self) -> int:
        """Distance of the outermost points in pixels, a power of two."""
        return 1 << (len(self.reach) - 1)

    @classmethod
    def of(cls, widths: Sequence[float], *, thin: bool = True) -> Surroundings:
        """What kernels of these widths over positions, in pixels, have to see.

        Without ``thin`` every pixel of the halo is taken, for kernels that only filter full grids.
        """
        widest = max(widths)
        halo = math.ceil(HALO_WIDTHS * widest)
        zones = max(0, math.floor(math.log2(widest / SAMPLES))) if thin else 0
        inner = [math.ceil(share * widest) for share in ZONE_WIDTHS[:zones]]
        if inner:
            step = 1 << len(inner)
            narrow = [width for width in widths if width < NARROWEST * step]
            ring = max(inner[0], math.ceil(RING_WIDTHS * max(narrow, default=0.0)), RING_LEAST)
            inner = [min(max(ring, reach), halo) for reach in inner]
        return cls(reach=(*inner, halo))

    def points(self, tile: Tile, shape: tuple[int, int]) -> TilePoints:
        """The pixels that a tile of an H × W image is computed from."""
        spans: list[Spans] = []
        for zone, reach in enumerate(self.reach):
            # A border between zones is one between cells of the coarser.
            cell = min(2 << zone, self.step)
            rows, columns = (
                _widened(span, reach, n, cell)
                for span, n in zip((tile.rows, tile.columns), shape, strict=True)
            )
            spans.append((rows, columns))
        zones = [
            Zone.between(inner, outer, 1 << k)
            for k, (inner, outer) in enumerate(itertools.pairwise(spans), start=1)
        ]
        return TilePoints(tile, *spans[0], tuple(zones))

    def count(self, tile: int, shape: tuple[int, int]) -> int:
        """Most points of a tile of so many pixels a side of an H × W image, about."""
        sizes = [math.prod(min(n, tile + 2 * reach) for n in shape) for reach in self.reach]
        zones = enumerate(itertools.pairwise(sizes), start=1)
        return sizes[0] + sum((outer - inner) >> 2 * k for k, (inner, outer) in zones)


@dataclass(frozen=True, eq=False)
class Zone:
    """The cells of a grid between two rectangles, row by row; each is known by its middle."""

    spans: Spans
    """The outer rectangle."""
    step: int
    """Pixels a side of a cell that the image's border does not cut."""
    rows: NDArray[np.int64]
    columns: NDArray[np.int64]
    """The middles of all cells in the outer rectangle."""
    taken: NDArray[np.bool_]
    """(rows, columns): which of them are not in the inner one."""
    mass: NDArray[np.int64]
    """(points,) pixels of each cell that is taken."""

    @classmethod
    def between(cls, inner: Spans, outer: Spans, step: int) -> Zone:
        (rows, heights), (columns, widths) = (_cells(span, step) for span in outer)
        taken = ~(_within(rows, inner[0])[:, None] & _within(columns, inner[1]))
        return cls(outer, step, rows, columns, taken, (heights[:, None] * widths)[taken])


@dataclass(frozen=True, eq=False)
class TilePoints:
    """N pixels: a full rectangle, row by row, then those of the zones around it."""

    tile: Tile
    rows: Span
    columns: Span
    """The rectangle: the tile and its ring."""
    zones: tuple[Zone, ...]

    @property
    def near_shape(self) -> tuple[int, int]:
        """(h, w) of the rectangle."""
        return self.rows[1] - self.rows[0], self.columns[1] - self.columns[0]

    @property
    def count(self) -> int:
        """N."""
        return math.prod(self.near_shape) + sum(len(zone.mass) for zone in self.zones)

    @property
    def window(self) -> Spans:
        """Rows and columns that hold all of the points."""
        return self.zones[-1].spans if self.zones else (self.rows, self.columns)

    def gather(
        self, values: Callable[[NDArray[np.int64], NDArray[np.int64]], FloatArray]
    ) -> FloatArray:
        """(C, N) of ``values``, which returns (C, R, K) for R rows and K columns of the image."""
        near = values(np.arange(*self.rows), np.arange(*self.columns))
        near = near.reshape(len(near), -1)
        out = np.empty((len(near), self.count), np.float32)
        begin = near.shape[1]
        out[:, :begin] = near
        for zone in self.zones:
            end = begin + len(zone.mass)
            for plane, found in zip(out, values(zone.rows, zone.columns), strict=True):
                plane[begin:end] = found[zone.taken]
            begin = end
        return out

    def mass(self) -> FloatArray:
        """(N,) how many pixels of the image every point stands for."""
        ones = np.ones(math.prod(self.near_shape), np.float32)
        return np.concatenate([ones, *(zone.mass.astype(np.float32) for zone in self.zones)])

    def positions(
        self, widths: tuple[float, float] = (math.inf, math.inf)
    ) -> tuple[FloatArray, FloatArray]:
        """(N,) rows and (N,) columns, counted from the rectangle's first pixel.

        Where a zone is too coarse for a kernel of these ``widths`` along rows and columns, its
        points lie closer together, which widens the kernel.
        """
        scales = [self._scale(axis, width) for axis, width in enumerate(widths)]

        def places(*given: NDArray[np.int64]) -> FloatArray:
            rows, columns = (
                np.interp(along, *scale).astype(np.float32)
                for along, scale in zip(given, scales, strict=True)
            )
            grid = np.empty((2, len(rows), len(columns)), np.float32)
            grid[0], grid[1] = rows[:, None], columns
            return grid

        rows, columns = self.gather(places)
        return rows, columns

    def _scale(self, axis: int, width: float) -> tuple[list[float], list[float]]:
        """Knots on an axis, and where a kernel of this width is to see them."""
        first, last = (self.rows, self.columns)[axis]
        knots, seen = [float(first), float(last)], [0.0, float(last - first)]
        for zone in self.zones:
            low, high = zone.spans[axis]
            share = min(1.0, width / (NARROWEST * zone.step))
            seen = [
                seen[0] - share * (knots[0] - low),
                *seen,
                seen[-1] + share * (high - knots[-1]),
            ]
            knots = [low, *knots, high]
        return knots, seen

    def core(self, values: NDArray[_Value]) -> NDArray[_Value]:
        """(H, W) of the tile itself from (N,) values."""
        h, w = self.near_shape
        (top, left), (height, width) = (self.tile.rows[0], self.tile.columns[0]), self.tile.shape
        y, x = top - self.rows[0], left - self.columns[0]
        return values[: h * w].reshape(h, w)[y : y + height, x : x + width]


def _widened(span: Span, by: int, size: int, cell: int) -> Span:
    first, last = (span[0] - by) // cell * cell, -(-(span[1] + by) // cell) * cell
    return max(0, first), min(size, last)


def _cells(span: Span, step: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The middle and the length of every cell, ``step`` long, of a span."""
    first = np.arange(span[0], span[1], step)
    last = np.minimum(first + step, span[1])
    return (first + last) // 2, last - first


def _within(places: NDArray[np.int64], span: Span) -> NDArray[np.bool_]:
    return (places >= span[0]) & (places < span[1])
