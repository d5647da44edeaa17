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
@pytest.mark.parametrize("widths", [(3, 80), (1, 131), (2, 40, 12), (3, 20), (3, 12)])
def test_points_stand_for_every_pixel_of_the_halo(shape, widths):
    size = 107
    around = Surroundings.of(widths)
    assert around.halo >= HALO_WIDTHS * max(widths)
    assert all(around.ring >= 4 * w for w in widths if w < NARROWEST * around.step)
    for tile in cut(shape, size):
        points = around.points(tile, shape)
        rows, columns = points.positions()
        rows, columns = rows + points.rows[0], columns + points.columns[0]
        mass = points.mass()
        assert len(rows) == len(columns) == len(mass) == points.count
        assert len(np.unique(rows * shape[1] + columns)) == points.count
        # Every cell that the halo touches is counted whole, once.
        (top, bottom), (left, right) = points.window
        for (first, last), span, n in zip(
            points.window, (tile.rows, tile.columns), shape, strict=True
        ):
            assert first <= max(0, span[0] - around.halo) < first + around.step
            assert last - around.step < min(n, span[1] + around.halo) <= last
        assert mass.sum() == (bottom - top) * (right - left)
        assert top <= rows.min() and rows.max() < bottom  # noqa: PT018
        assert left <= columns.min() and columns.max() < right  # noqa: PT018
        assert points.count <= around.count(size, shape) + 2 * around.step * sum(shape)


def test_points_are_thinner_the_farther_they_are():
    around = Surroundings.of((3, 80))
    assert around.reach == (48, 160, 240, 320)
    shape = (2048, 2048)
    tile = cut(shape, 512)[5]
    points = around.points(tile, shape)
    rows, columns = points.positions()
    far = [
        np.maximum(np.maximum(p + o - (hi - 1), lo - p - o), 0)
        for p, o, (lo, hi) in (
            (rows, points.rows[0], tile.rows),
            (columns, points.columns[0], tile.columns),
        )
    ]
    distance, mass = np.maximum(*far), points.mass()
    for cell, inner, outer in ((1, 0, 48), (2, 48, 160), (4, 160, 240), (8, 240, 320)):
        within = (distance > inner + 8) & (distance <= outer - 8) if inner else distance <= outer
        assert (mass[within] == cell**2).all()


def test_a_kernel_that_a_zone_is_too_coarse_for_is_widened_there():
    around = Surroundings.of((3, 80))
    shape = (1500, 1500)
    points = around.points(cut(shape, 500)[4], shape)
    plain, wide, narrow = (points.positions(w) for w in (((np.inf,) * 2), (80, 80), (3, 80)))
    np.testing.assert_array_equal(wide, plain)
    np.testing.assert_array_equal(narrow[1], plain[1])
    inside = (plain[0] >= 0) & (plain[0] < points.near_shape[0])
    np.testing.assert_array_equal(narrow[0][inside], plain[0][inside])
    # Of steps of 2, 4 and 8 pixels a width of 3 spans 1.5, once they are seen as 2, 2 and 2.
    begin = points.count - sum(len(zone.mass) for zone in points.zones)
    for zone in points.zones:
        rows, seen = (p[0][begin : begin + len(zone.mass)] for p in (plain, narrow))
        begin += len(zone.mass)
        top = rows < zone.spans[0][0] - points.rows[0] + 3 * zone.step
        assert np.diff(np.unique(rows[top]))[0] == zone.step
        np.testing.assert_allclose(np.diff(np.unique(seen[top]))[0], 2, rtol=1e-4)


def test_values_are_gathered_in_the_order_of_the_points():
    image = np.arange(300 * 400, dtype=np.float32).reshape(300, 400)
    tile = cut(image.shape, 128)[4]
    points = Surroundings.of((3, 80)).points(tile, image.shape)
    values = points.gather(lambda rows, columns: image[np.ix_(rows, columns)][None])[0]
    rows, columns = points.positions()
    expected = image[(rows + points.rows[0]).astype(int), (columns + points.columns[0]).astype(int)]
    np.testing.assert_array_equal(values, expected)
    np.testing.assert_array_equal(points.core(values), image[tile.region])
