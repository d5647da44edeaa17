"""What every set of kernels owes: one suite, run over all backends, at odd sizes."""

import os
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
SIZES = [(1, 1, 1), (7, 2, 3)]
"""Points, dimensions, channels; Triton's interpreter is slow, a GPU takes all and a large one."""
if os.environ.get("TRITON_INTERPRET") != "1":
    SIZES += [(63, 3, 5), (101, 5, 21), (97, 7, 4)]
if os.environ.get("LATTICE_TESTS_DEVICE") == "cuda":
    SIZES += [(100_003, 5, 21)]


@pytest.fixture(params=QUALITIES, ids=str)
def quality(request: pytest.FixtureRequest) -> dict[str, Any]:
    return request.param


@pytest.fixture(params=SIZES, ids=str)
def case(request, random):
    points, dim, channels = request.param
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
    ranks = torch.arange(dim + 1, device=features.device).expand(points, -1)
    assert torch.equal(lattice.rank.long().sort(1).values, ranks)
    torch.testing.assert_close(lattice.weight.sum(1), features.new_ones(points))
    assert lattice.weight.min() > -1e-6
    # The runs of ``entry`` group the flat vertex list.
    counts = lattice.row_start.diff()
    owner = torch.repeat_interleave(counts)
    assert torch.equal(lattice.vertex.flatten().long()[lattice.entry.long()], owner)
    entries = torch.arange(points * (dim + 1), device=features.device)
    assert torch.equal(lattice.entry.long().sort().values, entries)
    if not quality["ring"]:
        assert counts.min() > 0


def test_neighbours_point_back(case, backend, quality):
    lattice = Lattice.build(case[0], backend=backend, **quality)
    vertices = lattice.num_vertices
    for neighbour in lattice.neighbours.long():
        for side in (0, 1):
            there = neighbour[:, side]
            known = there < vertices
            assert torch.equal(neighbour[there[known], 1 - side], known.nonzero()[:, 0])


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

    # Features' gradients jump where float32 rounds a point into the next simplex.
    own = Lattice.build(features, backend=backend, **quality).rank
    exact = Lattice.build(features.double(), backend="torch", **quality).rank
    same = (own == exact).all(1)
    assert same.double().mean() > 0.999
    expected = [g[same] for g in gradients(torch.float64, "torch")]
    found = [g[same] for g in gradients(torch.float32, backend)]
    for mine, reference in zip(found, expected, strict=True):
        scale = reference.abs().max().float() + 1e-6
        torch.testing.assert_close(mine / scale, reference.float() / scale, rtol=1e-4, atol=1e-4)


def test_runs_are_identical(case, backend, quality):
    features, values = case
    first, second = (
        filter_on(Lattice.build(features, backend=backend, **quality), values) for _ in range(2)
    )
    assert torch.equal(first, second)


@pytest.mark.parametrize("quality", [q for q in QUALITIES if q["passes"] == 2], ids=str)
def test_two_passes_are_symmetric_and_positive(random, backend, quality):
    points = 5 if backend == "triton" else 41
    features = random(points, 3, dtype=torch.float32)
    one = torch.eye(points, device=features.device)
    matrix = filter_on(Lattice.build(features, backend=backend, **quality), one)
    torch.testing.assert_close(matrix, matrix.T)
    assert torch.linalg.eigvalsh(matrix.double()).min() > -1e-6
