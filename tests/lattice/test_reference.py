"""The plain PyTorch lattice: right against the Gaussian it stands for, gradients exact."""

import numpy as np
import pytest
import torch

from napari_deepcrf.lattice import (
    Lattice,
    barycentric_weights,
    filter_on,
    permutohedral_filter,
    torch_ops,
)
from napari_deepcrf.lattice import filter as filter_module
from napari_deepcrf.lattice.embedding import elevate, elevate_transposed, simplex
from napari_deepcrf.lattice.gaussians import LatticeGaussian
from napari_deepcrf.lattice.keys import number_cells

QUALITIES = [(False, 1), (True, 1), (False, 2), (True, 2)]


@pytest.mark.parametrize("dim", [1, 2, 3, 5])
def test_elevated_points_lie_on_the_hyperplane_at_equal_distances(random, dim):
    features = random(9, dim)
    elevated = elevate(features)
    torch.testing.assert_close(elevated.sum(1), torch.zeros(9, dtype=torch.float64))
    scale = torch.pdist(elevated) / torch.pdist(features)
    torch.testing.assert_close(scale, scale[:1].expand_as(scale))


@pytest.mark.parametrize("dim", [1, 2, 5])
def test_elevation_and_its_adjoint(random, dim):
    x, y = random(9, dim), random(9, dim + 1, seed=1)
    left, right = (elevate(x) * y).sum(), (x * elevate_transposed(y)).sum()
    torch.testing.assert_close(left, right)


def test_points_are_embedded_where_they_lie():
    """A device that computes nothing stands for every other than the CPU."""
    features = torch.empty(9, 3, device="meta")
    elevated = elevate(features)
    cell, rank, weight = simplex(elevated)
    keys = torch_ops._vertex_keys(cell, rank, number_cells([0, 0, 0], [5, 5, 5], images=3))
    found = (elevated, elevate_transposed(elevated), cell, rank, weight, keys)
    assert {tensor.device.type for tensor in found} == {"meta"}


def test_images_share_the_room_of_a_key():
    assert number_cells([0], [2**57], images=8).size == 2**61
    with pytest.raises(ValueError, match="lattice keys leave their range"):
        number_cells([0], [2**57], images=16)


@pytest.mark.parametrize("dim", [1, 2, 5])
def test_weights_interpolate_the_elevated_point(random, dim):
    elevated = elevate(random(33, dim) * 4)
    cell, rank, weight = simplex(elevated)
    order = dim + 1
    assert torch.equal(cell.sum(1), torch.zeros(33, dtype=torch.int64))
    point = torch.zeros_like(elevated)
    for k in range(order):
        lowered = (rank.long() >= order - k).long()
        point += weight[:, k, None] * ((cell - lowered) * order + k)
    torch.testing.assert_close(point, elevated)


@pytest.mark.parametrize(("ring", "passes"), QUALITIES)
def test_filter_is_close_to_the_gaussian(random, gaussian_matrix, ring, passes):
    # Enough points that the lattice is densely occupied, normalised by its own row sums.
    features, values = random(3000, 2), random(3000, 2, seed=1).abs()
    matrix = gaussian_matrix(features)
    expected = matrix @ values / matrix.sum(1, keepdim=True)
    lattice = Lattice.build(features, ring=ring, passes=passes)
    ones = torch.ones(3000, 1, dtype=torch.float64)
    result = filter_on(lattice, values) / filter_on(lattice, ones)
    assert (result - expected).norm() / expected.norm() < 0.05


@pytest.mark.parametrize(("ring", "passes"), QUALITIES)
@pytest.mark.parametrize("dim", [1, 2, 5])
def test_gradcheck_of_values_and_features(random, dim, ring, passes):
    values = random(13, 2, seed=1).requires_grad_()
    features = (random(13, dim) * 1.3).requires_grad_()

    def run(values, features):
        return permutohedral_filter(values, features, ring=ring, passes=passes)

    assert torch.autograd.gradcheck(run, (values, features), eps=1e-7)


def test_swapped_blur_order_in_the_backward_pass_is_noticed(random, monkeypatch):
    """The classic mistake: with the forward order in the backward pass gradients are off."""
    values = random(60, 2, seed=1).requires_grad_()
    features = random(60, 5).requires_grad_()
    upstream = random(60, 2, seed=2)

    def gradients():
        result = permutohedral_filter(values, features, backend="torch")
        return torch.autograd.grad(result, (values, features), upstream)

    right = gradients()
    blur = filter_module.Lattice.kernels.fget(Lattice.build(features)).blur
    monkeypatch.setattr(
        "napari_deepcrf.lattice.torch_ops.blur",
        lambda lattice, z, reverse: blur(lattice, z, reverse=False),
    )
    for swapped, exact in zip(gradients(), right, strict=True):
        assert (swapped - exact).norm() > 0.02 * exact.norm()


@pytest.mark.parametrize("passes", [1, 2])
@pytest.mark.parametrize("dim", [1, 2])
def test_diagonal_is_that_of_a_complete_lattice(random, dim, passes):
    features = random(400, dim) * 0.4
    lattice = Lattice.build(features, ring=True, passes=passes)
    complete = LatticeGaussian(lattice, lattice.weight).diagonal()
    actual = filter_on(lattice, torch.eye(400, dtype=torch.float64)).diagonal()
    # A missing neighbour can only take away; most points here lack none that matters.
    assert (actual <= complete + 1e-12).all()
    assert (complete - actual).median() < 1e-9


def test_alpha_of_one_pass_is_that_of_adams(random):
    for dim in (1, 2, 5):
        assert Lattice.build(random(4, dim)).alpha == pytest.approx(1 / (1 + 2**-dim))


def test_splat_without_segmented_sums(random):
    lattice = Lattice.build(random(33, 3))
    values = random(33, 5, seed=1)
    torch.testing.assert_close(
        torch_ops.splat_in_any_order(lattice, values), torch_ops.splat(lattice, values)
    )


def test_weights_function_returns_the_lattices_own(random):
    features = random(11, 3)
    lattice = Lattice.build(features)
    assert torch.equal(barycentric_weights(features, lattice), lattice.weight)


@pytest.mark.parametrize(
    ("backend", "dtype", "spread"),
    [
        *(("numba", torch.float32, spread) for spread in (1e7, 1e12, 1e30)),
        *(("torch", torch.float32, spread) for spread in (1e7, 1e12, 1e30)),
        *(("torch", torch.float64, spread) for spread in (1e9, 1e12, 1e30)),
    ],
)
def test_keys_out_of_range_are_refused(random, backend, dtype, spread):
    features = random(50, 5, dtype=dtype) * spread
    with pytest.raises(ValueError, match="kernel widths too small"):
        Lattice.build(features, backend=backend)


def test_points_far_from_the_origin_are_numbered_too(random, backend):
    """The parts of such keys are larger than 64 bits hold, the keys are not."""
    features = (random(50, 5, dtype=torch.float32).sigmoid() - 0.5) * 2000
    lattice = Lattice.build(features + 2e5, ring=True, backend=backend)
    right = lattice.neighbours[..., 1].long()
    known = right < lattice.num_vertices
    assert known[:, lattice.vertex.flatten().long()].all()
    for axis, here in enumerate(known):
        back = lattice.neighbours[axis, right[axis, here], 0]
        assert torch.equal(back.long(), here.nonzero()[:, 0])


@pytest.mark.parametrize(
    ("features", "error", "message"),
    [
        (torch.zeros(3), ValueError, r"expected shape \(N, d\)"),
        (torch.zeros(0, 2), ValueError, r"expected shape \(N, d\)"),
        (torch.zeros(3, 2, dtype=torch.int64), TypeError, "float32 or float64"),
        (torch.full((3, 2), float("nan")), ValueError, "NaN"),
        (torch.full((3, 2), float("inf")), ValueError, "infinity"),
    ],
)
def test_bad_features_are_refused(features, error, message):
    with pytest.raises(error, match=message):
        Lattice.build(features)


def test_bad_arguments_are_refused():
    features = torch.zeros(3, 2)
    with pytest.raises(ValueError, match="passes: expected 1 or 2, got 3"):
        Lattice.build(features, passes=3)
    with pytest.raises(ValueError, match="backend: expected one of auto, torch"):
        Lattice.build(features, backend="cuda")
    with pytest.raises(ValueError, match=r"values: expected shape \(3, C\)"):
        permutohedral_filter(torch.zeros(4, 1), features)
    with pytest.raises(TypeError, match="values: expected torch"):
        permutohedral_filter(torch.zeros(3, 1, dtype=torch.float64), features)


@pytest.mark.parametrize(
    ("values", "features", "message"),
    [
        (np.ones((3, 1)), torch.ones(3, 2), "values: expected a torch.Tensor, got ndarray"),
        (torch.ones(3, 1), np.ones((3, 2)), "features: expected a torch.Tensor, got ndarray"),
        (torch.ones(3, 1), torch.ones(3, 2).int(), "features: expected float32 or float64, got"),
        (torch.ones(3, 1).long(), torch.ones(3, 2), "values: expected float32 or float64, got"),
    ],
)
def test_other_types_are_refused(values, features, message):
    with pytest.raises(TypeError, match=message):
        permutohedral_filter(values, features)


@pytest.mark.parametrize("through", ["values", "features"])
def test_second_derivatives_are_refused(random, backend, through):
    """PyTorch would leave out what passes through the filter."""
    given = {"values": random(9, 2).float(), "features": random(9, 3, seed=1).float()}
    leaf = given[through].requires_grad_()
    loss = permutohedral_filter(**given, backend=backend).square().sum()
    with pytest.raises(NotImplementedError, match="create_graph: expected False"):
        torch.autograd.grad(loss, leaf, create_graph=True)


def test_values_of_other_points_are_refused(random):
    with pytest.raises(ValueError, match=r"values: expected shape \(7, C\), got \(5, 2\)"):
        filter_on(Lattice.build(random(7, 3)), random(5, 2))


def test_empty_values_are_refused():
    with pytest.raises(ValueError, match=r"values: expected shape \(N, C\), got \(3, 0\)"):
        permutohedral_filter(torch.ones(3, 0), torch.ones(3, 2))
