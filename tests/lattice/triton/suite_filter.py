"""Triton's splat, blur, slice and inner products against the plain PyTorch ones."""

from __future__ import annotations

import pytest
import torch
from triton_inputs import CLOSE, DEVICE, QUALITIES, features_of, full, random

from napari_deepcrf.lattice import Lattice, permutohedral_filter, torch_ops, triton_gpu
from napari_deepcrf.lattice.triton_build import owned


@pytest.mark.parametrize("channels", [1, 2, 21, 70])
def test_operators_agree_with_the_reference(channels):
    lattice = Lattice.build(features_of(full(19, 50_021), 3), backend="triton")
    values = random(lattice.num_points, channels, seed=1)
    z = torch_ops.splat(lattice, values)
    torch.testing.assert_close(triton_gpu.splat(lattice, values), z, **CLOSE)
    for reverse in (False, True):
        blurred = triton_gpu.blur(lattice, z, reverse=reverse)
        expected = torch_ops.blur(lattice, z, reverse=reverse)
        torch.testing.assert_close(blurred, expected, **CLOSE)
    torch.testing.assert_close(triton_gpu.slice(lattice, z), torch_ops.slice(lattice, z), **CLOSE)
    torch.testing.assert_close(
        triton_gpu.gather_dot(lattice, values, z),
        torch_ops.gather_dot(lattice, values, z),
        rtol=1e-4,
        atol=1e-4 * float(z.abs().max()),
    )


def test_long_runs_are_split():
    features = torch.zeros(full(300, 300_000), 2, device=DEVICE)
    features[-7:] = random(7, 2)
    lattice = owned(Lattice.build(features, backend="triton", ring=True))
    assert lattice.split_vertex.shape[0] == 3
    values = random(features.shape[0], 3, seed=1)
    expected = torch_ops.splat(lattice, values.double()).float()
    torch.testing.assert_close(triton_gpu.splat(lattice, values), expected, rtol=1e-5, atol=1e-3)
    empty = (lattice.row_start.diff() == 0).nonzero()[:, 0]
    assert empty.numel() > 0
    assert bool((triton_gpu.splat(lattice, values)[empty] == 0).all())


@pytest.mark.parametrize("quality", [QUALITIES[0], QUALITIES[2]])
def test_filter_gradients_agree_with_the_reference(quality):
    count = full(17, 10_007)
    results = []
    for backend in ("triton", "torch"):
        values = random(count, 3, seed=1).requires_grad_()
        features = features_of(count, 2).requires_grad_()
        filtered = permutohedral_filter(values, features, backend=backend, **quality)
        (filtered * random(count, 3, seed=2)).sum().backward()
        results.append((filtered.detach(), values.grad, features.grad))
    for own, reference in zip(*results, strict=True):
        torch.testing.assert_close(
            own, reference, rtol=1e-4, atol=1e-4 * float(reference.abs().max())
        )
