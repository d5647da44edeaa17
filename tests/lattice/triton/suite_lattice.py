"""Triton's lattices against the plain PyTorch ones."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from triton.runtime.errors import InterpreterError
from triton_inputs import CLOSE, DEVICE, INTERPRETED, QUALITIES, features_of, full, random

from napari_deepcrf.lattice import Lattice, permutohedral_filter, triton_gpu
from napari_deepcrf.lattice.keys import numbering
from napari_deepcrf.lattice.scaled import ScaledLattice
from napari_deepcrf.lattice.triton_build import PIECE, owned
from napari_deepcrf.lattice.triton_mean_field import mean_field

SHAPES = [(1, 3), (full(63, 63_000), 2), (full(40, 100_003), 5), (full(9, 20_011), 7)]


@pytest.mark.parametrize("quality", QUALITIES)
@pytest.mark.parametrize("shape", SHAPES)
def test_lattice_is_consistent(shape, quality):
    lattice = owned(Lattice.build(features_of(*shape), backend="triton", **quality))
    num_points, num_vertices, order = lattice.num_points, lattice.num_vertices, lattice.dim + 1
    assert lattice.vertex.amin() >= 0
    assert lattice.vertex.amax() < num_vertices
    assert lattice.neighbours.amin() >= 0
    assert lattice.neighbours.amax() <= num_vertices
    torch.testing.assert_close(lattice.weight.sum(1), torch.ones(num_points, device=DEVICE))
    assert lattice.weight.amin() > -1e-5
    assert torch.equal(
        lattice.rank.sort(1).values, torch.arange(order, device=DEVICE).expand(num_points, -1)
    )
    # Entries are grouped by vertex, each exactly once.
    entry = lattice.entry.long()
    assert torch.equal(entry.sort().values, torch.arange(num_points * order, device=DEVICE))
    vertex_of_row = torch.repeat_interleave(lattice.row_start.diff())
    assert torch.equal(lattice.vertex.flatten()[entry].long(), vertex_of_row)
    # Where a right neighbour is, this vertex is its left one.
    for left, right in (axis.long().unbind(1) for axis in lattice.neighbours):
        here = (right < num_vertices).nonzero()[:, 0]
        assert torch.equal(left[right[here]], here)
    # Pieces cover every run.
    pieces = lattice.piece_row.diff()
    assert torch.equal(torch.repeat_interleave(pieces), lattice.piece_vertex.long())
    assert bool((pieces * PIECE >= lattice.row_start.diff()).all())
    assert torch.equal((pieces > 1).nonzero()[:, 0], lattice.split_vertex.long())


@pytest.mark.skipif(not INTERPRETED, reason="a GPU may round a point into the next simplex")
@pytest.mark.parametrize("quality", QUALITIES)
@pytest.mark.parametrize("shape", SHAPES)
def test_lattice_equals_the_reference(shape, quality):
    own, reference = (
        Lattice.build(features_of(*shape), backend=name, **quality) for name in ("triton", "torch")
    )
    for name in ("vertex", "rank", "neighbours", "row_start", "entry"):
        assert torch.equal(getattr(own, name), getattr(reference, name)), name
    torch.testing.assert_close(own.weight, reference.weight, rtol=0, atol=2e-6)


@pytest.mark.parametrize("quality", QUALITIES)
def test_images_have_lattices_of_their_own(quality):
    features = features_of(full(5, 20_011), 3)
    one = owned(Lattice.build(features, backend="triton", **quality))
    two = owned(Lattice.build(features.repeat(2, 1), backend="triton", images=2, **quality))
    size, half = one.num_vertices, features.shape[0]
    assert two.num_vertices == 2 * size
    assert torch.equal(two.vertex, torch.cat([one.vertex, one.vertex + size]))
    assert torch.equal(two.weight[half:], one.weight)
    # Missing neighbours are M, here and there.
    second = two.neighbours[:, size:]
    inside = second < 2 * size
    assert torch.equal(inside, one.neighbours < size)
    assert torch.equal(second[inside] - size, one.neighbours[inside])
    first = two.neighbours[:, :size]
    assert torch.equal(first[inside], one.neighbours[inside])
    assert bool((first[~inside] == 2 * size).all())


def test_features_may_lie_in_planes():
    features = features_of(full(33, 5_003), 5)
    rows, planes = (
        owned(Lattice.build(f, backend="triton")) for f in (features, features.T.contiguous().T)
    )
    assert torch.equal(rows.vertex, planes.vertex)
    assert torch.equal(rows.weight, planes.weight)


def test_keys_take_the_narrowest_integer_that_holds_them():
    assert numbering([0.0] * 2, [9.0] * 2, 1, images=1).dtype == torch.int32
    wide = numbering([0.0] * 5, [500.0] * 5, 1, images=1)
    assert wide.dtype == torch.int64
    assert wide.size >= 2**31
    many = 2**31 // numbering([0.0] * 2, [9.0] * 2, 1, images=1).size + 1
    assert numbering([0.0] * 2, [9.0] * 2, 1, images=many).dtype == torch.int64
    features = torch.cat([features_of(5, 5), features_of(4, 5) + 500.0])
    results = [
        permutohedral_filter(random(9, 1), features, backend=backend)
        for backend in ("triton", "torch")
    ]
    torch.testing.assert_close(*results, **CLOSE)


def test_what_the_kernels_cannot_do_is_refused():
    features = features_of(9, 2)
    lattice = Lattice.build(features, backend="triton")
    with pytest.raises(TypeError, match=r"features: the Triton kernels expect float32"):
        Lattice.build(features.double(), backend="triton")
    with pytest.raises(TypeError, match="built by Triton"):
        triton_gpu.splat(Lattice.build(features, backend="torch"), random(9, 1))
    with pytest.raises(ValueError, match="widths too small"):
        Lattice.build(features * 1e7, backend="triton")
    with pytest.raises(ValueError, match="widths too small"):
        numbering([-1e6] * 5, [1e6] * 5, 1, images=1)
    many = torch.zeros(1, 1, device=DEVICE).expand(2**30, 1)
    with pytest.raises(ValueError, match=r"features: expected fewer than 1073741824 points"):
        triton_gpu.build(many, ring=False, passes=1, images=1)
    kernel = ScaledLattice(lattice, lattice.weight, *torch.ones(2, 9, device=DEVICE))
    with pytest.raises(NotImplementedError, match="more than 64 labels"):
        mean_field(random(9, 65), [kernel], 1, compatibility=random(65, 65))
    with pytest.raises(NotImplementedError, match="other kernels"):
        mean_field(random(9, 2), [], 1, grids=[object()])


@pytest.mark.skipif(not INTERPRETED, reason="indices are asserted in the interpreter alone")
def test_indices_out_of_range_are_noticed():
    lattice = owned(Lattice.build(features_of(5, 1), backend="triton"))
    astray = replace(lattice, vertex=lattice.vertex + 100, splat_point=lattice.splat_point + 100)
    with pytest.raises(InterpreterError, match="splat: point out of range"):
        triton_gpu.splat(astray, random(5, 1))
    with pytest.raises(InterpreterError, match="slice: vertex out of range"):
        triton_gpu.slice(astray, random(lattice.num_vertices, 1))
