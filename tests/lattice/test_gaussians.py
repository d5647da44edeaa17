"""The exact Gaussians: separable on a grid, and by brute force."""

import pytest
import torch

from napari_deepcrf.lattice import brute_force
from napari_deepcrf.lattice.brute_force import BruteForceGaussian
from napari_deepcrf.lattice.grid import GridGaussian, spatial_taps


def grid_points(shape):
    axes = [torch.arange(n, dtype=torch.float64) for n in shape]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).reshape(-1, len(shape))


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (13, 7), (3, 5, 4)])
@pytest.mark.parametrize("width", [0.05, 0.8, 3.0, 1e4])
def test_grid_equals_the_dense_kernel(random, gaussian_matrix, shape, width):
    widths = width * torch.tensor([1.0, 1.5, 0.7][: len(shape)], dtype=torch.float64)
    points = grid_points(shape) / widths.flip(0)
    values = random(len(points), 3)
    grid = GridGaussian(shape, spatial_taps(widths, shape, radius=9.0))
    torch.testing.assert_close(grid.apply(values), gaussian_matrix(points) @ values)
    assert torch.equal(grid.diagonal(), torch.ones(len(points), dtype=torch.float64))


def test_long_axes_are_cut_into_blocks(random, gaussian_matrix):
    points = grid_points((101, 2)) / 1.3
    values = random(202, 2)
    widths = torch.full((2,), 1.3, dtype=torch.float64)
    grid = GridGaussian((101, 2), spatial_taps(widths, (101, 2), radius=9.0))
    torch.testing.assert_close(grid.apply(values), gaussian_matrix(points) @ values)


def test_grid_gradcheck(random):
    values = random(35, 2).requires_grad_()
    widths = torch.tensor([1.1, 2.3], dtype=torch.float64, requires_grad=True)

    def run(values, widths):
        return GridGaussian((5, 7), spatial_taps(widths, (5, 7), radius=9.0)).apply(values)

    assert torch.autograd.gradcheck(run, (values, widths))


def test_brute_force_equals_the_dense_kernel_in_blocks(random, gaussian_matrix, monkeypatch):
    monkeypatch.setattr(brute_force, "BLOCK_ELEMENTS", 100)
    features, values = random(31, 4), random(31, 3, seed=1)
    expected = gaussian_matrix(features) @ values
    gaussian = BruteForceGaussian(features)
    torch.testing.assert_close(gaussian.apply(values), expected)
    assert torch.equal(gaussian.diagonal(), torch.ones(31, dtype=torch.float64))


def test_brute_force_gradcheck(random, monkeypatch):
    monkeypatch.setattr(brute_force, "BLOCK_ELEMENTS", 50)
    values = random(12, 2, seed=1).requires_grad_()
    features = random(12, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, f: BruteForceGaussian(f).apply(x), (values, features))
