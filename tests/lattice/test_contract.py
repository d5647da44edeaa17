"""What every set of kernels owes: one suite, run over all backends, at odd sizes."""

from typing import Any

import pytest
import torch

from napari_deepcrf.lattice import Lattice, filter_on, permutohedral_filter, torch_ops

QUALITIES: list[dict[str, Any]] = [
    {"ring": False, "passes": 1},
    {"ring": True, "passes": 1},
    {"ring": False, "passes": 2},
    {"ring": True, "passes": 2},
]
SIZES = [(1, 1, 1), (7, 2, 3), (63, 3, 5), (101, 5, 21), (97, 7, 4)]
"""Points, dimensions, channels; the last three are too large for Triton's interpreter."""

pytestmark = pytest.mark.parametrize("quality", QUALITIES, ids=str)


@pytest.fixture(params=SIZES, ids=str)
def case(request, random, backend):
    points, dim, channels = request.param
    if backend == "triton" and points > 7:
        pytest.skip("too large for the interpreter")
    features = random(points, dim, dtype=torch.float32) * 1.5
    values = random(points, channels, seed=1, dtype=torch.float32)
    return features, values


def test_arrays_are_consistent(case, backend, quality):
    features, _ = case
    lattice = Lattice.build(features, backend=backend, **quality)
    (points, dim), vertices = features.shape, lattice.num_vertices
    assert lattice.backend == backend
    assert (lattice.num_points, lattice.dim) == (points, dim)
    assert lattice.vertex.shape == lattice.weight.shape == lattice.rank.shape == (points, dim + 1)
    assert lattice.neighbours.shape == (dim + 1, vertices, 2)
    assert lattice.vertex.dtype == lattice.neighbours.dtype == lattice.entry.dtype == torch.int32
    assert lattice.rank.dtype == torch.int8
    assert torch.equal(lattice.rank.long().sort(1).values, torch.arange(dim + 1).expand(points, -1))
    torch.testing.assert_close(lattice.weight.sum(1), torch.ones(points))
    assert lattice.weight.min() > -1e-6
    # The runs of ``entry`` group the flat vertex list.
    counts = lattice.row_start.diff()
    owner = torch.repeat_interleave(torch.arange(vertices), counts)
    assert torch.equal(lattice.vertex.flatten().long()[lattice.entry.long()], owner)
    assert torch.equal(lattice.entry.long().sort().values, torch.arange(points * (dim + 1)))
    if not quality["ring"]:
        assert counts.min() > 0


def test_neighbours_point_back(case, backend, quality):
    lattice = Lattice.build(case[0], backend=backend, **quality)
    vertices = lattice.num_vertices
    for neighbour in lattice.neighbours.long():
        for side in (0, 1):
            there = neighbour[:, side]
            known = there < vertices
            assert torch.equal(neighbour[there[known], 1 - side], torch.arange(vertices)[known])


def test_filter_equals_the_reference(case, backend, quality):
    features, values = case
    expected = permutohedral_filter(
        values.double(), features.double(), backend="torch", **quality
    ).float()
    result = permutohedral_filter(values, features, backend=backend, **quality)
    scale = expected.abs().max()
    torch.testing.assert_close(result / scale, expected / scale, rtol=1e-5, atol=1e-5)


def test_reverse_blur_is_the_transpose(case, backend, quality, kernels, random):
    lattice = Lattice.build(case[0], backend=backend, **quality)
    x = random(lattice.num_vertices, 3, dtype=torch.float32)
    y = random(lattice.num_vertices, 3, seed=5, dtype=torch.float32)
    forward = (kernels.blur(lattice, x, reverse=False) * y).double().sum()
    backward = (x * kernels.blur(lattice, y, reverse=True)).double().sum()
    torch.testing.assert_close(forward, backward, rtol=1e-4, atol=1e-3)


def test_splat_is_the_transpose_of_slice(case, backend, quality, kernels, random):
    features, values = case
    lattice = Lattice.build(features, backend=backend, **quality)
    z = random(lattice.num_vertices, values.shape[1], dtype=torch.float32)
    left = (kernels.splat(lattice, values) * z).double().sum()
    right = (values * kernels.slice(lattice, z)).double().sum()
    torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-4)


def test_gather_dot_equals_the_reference(case, backend, quality, kernels, random):
    features, values = case
    lattice = Lattice.build(features, backend=backend, **quality)
    z = random(lattice.num_vertices, values.shape[1], dtype=torch.float32)
    torch.testing.assert_close(
        kernels.gather_dot(lattice, values, z),
        torch_ops.gather_dot(lattice, values, z),
        rtol=1e-5,
        atol=1e-5,
    )


def test_gradients_equal_the_reference(case, backend, quality, random):
    features, values = case
    upstream = random(*values.shape, seed=2, dtype=torch.float32)

    def gradients(dtype, name):
        leaves = [t.detach().to(dtype).requires_grad_() for t in (values, features)]
        result = permutohedral_filter(*leaves, backend=name, **quality)
        return torch.autograd.grad(result, leaves, upstream.to(dtype))

    expected = gradients(torch.float64, "torch")
    for mine, reference in zip(gradients(torch.float32, backend), expected, strict=True):
        scale = reference.abs().max().float() + 1e-6
        torch.testing.assert_close(mine / scale, reference.float() / scale, rtol=1e-4, atol=1e-4)


def test_runs_are_identical(case, backend, quality):
    features, values = case
    first, second = (
        filter_on(Lattice.build(features, backend=backend, **quality), values) for _ in range(2)
    )
    assert torch.equal(first, second)


def test_two_passes_are_symmetric_and_positive(random, backend, quality):
    if quality["passes"] == 1:
        pytest.skip("one pass is not symmetric")
    points = 5 if backend == "triton" else 41
    features = random(points, 3, dtype=torch.float32)
    matrix = filter_on(Lattice.build(features, backend=backend, **quality), torch.eye(points))
    torch.testing.assert_close(matrix, matrix.T)
    assert torch.linalg.eigvalsh(matrix.double()).min() > -1e-6
