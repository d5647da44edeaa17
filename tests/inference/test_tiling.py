"""What tiles are cut and which pixels stand for their surroundings."""

import numpy as np
import pytest

from napari_deepcrf.inference.tiling import HALO_WIDTHS, NARROWEST, Surroundings, cut


def test_tiles_cover_every_pixel_once():
    seen = np.zeros((37, 50), int)
    for tile in cut((37, 50), 16):
        seen[tile.region] += 1
    assert (seen == 1).all()
    assert [tile.number for tile in cut((37, 50), 16)] == list(range(12))


@pytest.mark.parametrize("shape", [(300, 400), (301, 397), (90, 1000)])
@pytest.mark.parametrize("widths", [(3, 80), (1, 131), (2, 40, 12), (3, 20)])
def test_points_stand_for_every_pixel_of_the_halo(shape, widths):
    around = Surroundings.of(widths)
    assert around.halo >= HALO_WIDTHS * max(widths)
    assert all(around.ring >= 4 * w for w in widths if w < NARROWEST * around.step)
    for tile in cut(shape, 128):
        points = around.points(tile, shape)
        rows, columns = points.positions()
        rows, columns = rows + points.rows[0], columns + points.columns[0]
        mass = points.mass()
        assert len(rows) == len(columns) == len(mass) == points.count
        assert len(set(zip(rows.tolist(), columns.tolist(), strict=True))) == points.count
        # Every cell that the halo touches is counted whole.
        cell = around.step
        expected = 1
        for span, size in zip((tile.rows, tile.columns), shape, strict=True):
            first = max(0, span[0] - around.halo) // cell * cell
            last = min(size, -(-min(size, span[1] + around.halo) // cell) * cell)
            expected *= last - first
        assert mass.sum() == expected
        (top, bottom), (left, right) = points.window
        assert top <= rows.min() and rows.max() < bottom  # noqa: PT018
        assert left <= columns.min() and columns.max() < right  # noqa: PT018


def test_the_core_is_cut_out_of_the_points():
    image = np.arange(300 * 400).reshape(300, 400)
    tile = cut(image.shape, 128)[4]
    points = Surroundings.of((3, 80)).points(tile, image.shape)
    near = image[slice(*points.rows), slice(*points.columns)]
    far = image[np.ix_(points.grid_rows, points.grid_columns)]
    values = points.join(near[None], far[None])[0]
    assert values.shape == (points.count,)
    np.testing.assert_array_equal(points.core(values), image[tile.region])
