"""The Numba kernels against the plain PyTorch reference, on odd sizes and both qualities."""

from __future__ import annotations

import pytest
import torch

from napari_deepcrf.lattice import Lattice
from napari_deepcrf.lattice import numba_cpu as fast
from napari_deepcrf.lattice import torch_ops as plain

SHAPES = [(1, 5), (63, 5), (64, 2), (65, 3), (1000, 2), (2000, 5), (777, 1), (300, 7)]
QUALITIES = [{"ring": False, "passes": 1}, {"ring": True, "passes": 1}, {"ring": True, "passes": 2}]


def features_of(shape: tuple[int, int], seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * 2


@pytest.mark.parametrize("quality", QUALITIES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("reverse", [False, True])
def test_filter_agrees_with_the_reference(shape, quality, reverse):
    features = features_of(shape)
    values = torch.randn(shape[0], 5, generator=torch.Generator().manual_seed(1))
    results = []
    for kernels, backend in ((fast, "numba"), (plain, "torch")):
        lattice = Lattice.build(features, backend=backend, **quality)
        blurred = kernels.blur(lattice, kernels.splat(lattice, values), reverse=reverse)
        results.append(kernels.slice(lattice, blurred) * lattice.alpha)
    torch.testing.assert_close(*results, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("quality", QUALITIES)
@pytest.mark.parametrize("shape", SHAPES)
def test_lattice_has_the_reference_structure(shape, quality):
    features = features_of(shape)
    ours = Lattice.build(features, backend="numba", **quality)
    reference = Lattice.build(features, backend="torch", **quality)
    assert ours.num_vertices == reference.num_vertices
    assert torch.equal(ours.rank, reference.rank)
    torch.testing.assert_close(ours.weight, reference.weight, rtol=0, atol=2e-6)
    # Equal up to the numbering of the vertices.
    renamed = torch.full((ours.num_vertices + 1,), -1, dtype=torch.int32)
    renamed[ours.vertex.long()] = reference.vertex
    renamed[-1] = reference.num_vertices
    occupied = renamed[:-1] >= 0
    for own, other in zip(ours.neighbours, reference.neighbours, strict=True):
        expected = other[renamed[:-1][occupied].long()]
        found = renamed[own[occupied].long()]
        known = found >= 0
        assert torch.equal(found[known], expected[known])
    assert torch.equal(
        ours.vertex.flatten()[ours.entry.long()],
        torch.repeat_interleave(
            torch.arange(ours.num_vertices, dtype=torch.int32), ours.row_start.diff().long()
        ),
    )


@pytest.mark.parametrize("channels", [1, 2, 21, 24])
def test_gather_dot_agrees_with_the_reference(channels):
    lattice = Lattice.build(features_of((130, 3)), backend="numba")
    values, z = (
        features_of((rows, channels), seed) for seed, rows in ((1, 130), (2, lattice.num_vertices))
    )
    torch.testing.assert_close(
        fast.gather_dot(lattice, values, z),
        plain.gather_dot(lattice, values, z),
        rtol=1e-5,
        atol=1e-5,
    )


def test_tied_coordinates_follow_the_reference():
    features = torch.zeros(70, 5)
    features[35:] = 1.0
    ours = Lattice.build(features, backend="numba")
    reference = Lattice.build(features, backend="torch")
    assert torch.equal(ours.rank, reference.rank)
    assert ours.num_vertices == reference.num_vertices


def test_repeated_builds_are_identical():
    features = features_of((500, 5))
    first, second = (Lattice.build(features, backend="numba", ring=True) for _ in range(2))
    for name in ("vertex", "weight", "neighbours", "entry"):
        assert torch.equal(getattr(first, name), getattr(second, name))


def test_too_small_widths_are_refused():
    features = features_of((50, 5)) * 1e6
    with pytest.raises(ValueError, match="widths too small"):
        Lattice.build(features, backend="numba")


def test_double_precision_is_refused():
    with pytest.raises(TypeError, match="float32"):
        Lattice.build(torch.zeros(3, 2, dtype=torch.float64), backend="numba")
