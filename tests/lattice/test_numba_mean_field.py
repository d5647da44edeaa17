"""The fused mean field against the same updates in plain PyTorch, forward and backward."""

from __future__ import annotations

from dataclasses import dataclass, fields

import pytest
import torch

from napari_deepcrf.lattice import Lattice
from napari_deepcrf.lattice.gaussians import LatticeGaussian
from napari_deepcrf.lattice.numba_fused import mean_field
from napari_deepcrf.lattice.numba_lattice import CHUNK, chunk_bounds
from napari_deepcrf.lattice.scaled import ScaledLattice
from napari_deepcrf.lattice.torch_ops import TorchLattice


@dataclass
class Case:
    """A problem of N pixels and L labels with two kernels, float32."""

    scores: torch.Tensor
    kernels: list[ScaledLattice]
    compatibility: torch.Tensor | None = None

    def leaves(self) -> list[torch.Tensor]:
        weights = [tensor for kernel in self.kernels for tensor in kernel[1:]]
        extra = [] if self.compatibility is None else [self.compatibility]
        return [self.scores, *weights, *extra]


def make(height: int, width: int, labels: int, *, mixing: bool = False, passes: int = 1) -> Case:
    generator = torch.Generator().manual_seed(height * width + labels)
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    colour = torch.rand(height, width, generator=generator) * 4 + rows / 9
    positions = torch.stack([columns, rows], -1).reshape(-1, 2).float()
    features = [positions / 3, torch.cat([positions / 20, colour.reshape(-1, 1)], 1)]
    kernels: list[ScaledLattice] = []
    for f in features:
        lattice = Lattice.build(f, backend="numba", ring=passes == 2, passes=passes)
        row_sum = LatticeGaussian(lattice, lattice.weight).apply(torch.ones(len(f), 1))[:, 0]
        noise = torch.rand(2, len(f), generator=generator) + 0.5
        before, after = noise * row_sum.rsqrt()
        factors = before.requires_grad_(), (after * 3).requires_grad_()
        kernels.append(ScaledLattice(lattice, lattice.weight.clone().requires_grad_(), *factors))
    scores = 2 * torch.randn(labels, height * width, generator=generator)
    mu = torch.eye(labels) + 0.3 * torch.randn(labels, labels, generator=generator)
    return Case(scores.requires_grad_(), kernels, mu.requires_grad_() if mixing else None)


def in_plain_torch(lattice: Lattice) -> Lattice:
    arrays = {field.name: getattr(lattice, field.name) for field in fields(Lattice)}
    return TorchLattice(**(arrays | {"vertex": lattice.vertex, "backend": "torch"}))


def plain_mean_field(case: Case, iterations: int) -> torch.Tensor:
    """The definition, by reference kernels and autograd over single filters."""
    scores = case.scores.T
    trace = [scores.softmax(1)]
    for _ in range(iterations):
        message = torch.zeros_like(scores)
        for kernel in case.kernels:
            lattice = in_plain_torch(kernel.lattice)
            filtered = LatticeGaussian(lattice, kernel.weight)
            scale = kernel.after[:, None] / lattice.alpha
            message = message + scale * filtered.apply(kernel.before[:, None] * trace[-1])
        mixed = message if case.compatibility is None else message @ case.compatibility
        trace.append((scores + mixed).softmax(1))
    return torch.stack(trace)


def fused(case: Case, iterations: int, **options) -> torch.Tensor:
    mu = case.compatibility
    return mean_field(case.scores.T, case.kernels, iterations, compatibility=mu, **options)


SIZES = [(1, 1, 1), (1, 70, 2), (31, 47, 21), (20, 33, 4), (9, 65, 12)]


@pytest.mark.parametrize("mixing", [False, True])
@pytest.mark.parametrize("size", SIZES)
def test_marginals_agree_with_plain_updates(size, mixing):
    case = make(*size, mixing=mixing)
    torch.testing.assert_close(fused(case, 4), plain_mean_field(case, 4), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("mixing", [False, True])
@pytest.mark.parametrize("passes", [1, 2])
@pytest.mark.parametrize("size", SIZES[1:4])
def test_gradients_agree_with_plain_updates(size, mixing, passes):
    case = make(*size, mixing=mixing, passes=passes)
    expected = plain_mean_field(case, 3)
    upstream = torch.randn(expected.shape, generator=torch.Generator().manual_seed(2))
    gradients = [
        torch.autograd.grad(result, case.leaves(), upstream)
        for result in (fused(case, 3), expected)
    ]
    for own, reference in zip(*gradients, strict=True):
        assert (own - reference).norm() <= 1e-4 * reference.norm()


def test_the_last_update_alone_has_the_same_values_and_gradients():
    case = make(23, 29, 3)
    upstream = torch.randn(1, 23 * 29, 3, generator=torch.Generator().manual_seed(2))
    last, trace = fused(case, 3, keep_all=False), fused(case, 3)
    assert torch.equal(last[0], trace[-1])
    own = torch.autograd.grad(last, case.leaves(), upstream)
    full = torch.autograd.grad(trace[-1:], case.leaves(), upstream)
    assert all(torch.equal(a, b) for a, b in zip(own, full, strict=True))


def test_no_updates_leave_the_softmax():
    case = make(5, 7, 3)
    expected = case.scores.T.softmax(1)[None]
    for keep_all in (True, False):
        torch.testing.assert_close(fused(case, 0, keep_all=keep_all), expected)


def test_results_do_not_depend_on_the_number_of_threads():
    case = make(300, 3 * CHUNK // 300 + 7, 3, mixing=True)
    assert len(chunk_bounds(case.scores.shape[1])) == 4
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3, 2):
            torch.set_num_threads(threads)
            out = fused(case, 2)
            results.append([out, *torch.autograd.grad(out.square().sum(), case.leaves())])
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        for index, (a, b) in enumerate(zip(results[0], other, strict=True)):
            assert torch.equal(a, b), index


def test_scores_may_have_any_strides():
    case = make(13, 11, 3)
    by_pixel = mean_field(case.scores.detach().T.contiguous(), case.kernels, 2)
    assert torch.equal(by_pixel, fused(case, 2))


@pytest.mark.parametrize("extreme", [1e4, -1e4])
def test_extreme_scores_stay_finite(extreme):
    case = make(8, 9, 3)
    scores = case.scores.detach().clone()
    scores[1, ::2] = extreme
    out = mean_field(scores.T, case.kernels, 2)
    assert torch.isfinite(out).all()
    torch.testing.assert_close(out.sum(2), torch.ones(3, 72), rtol=1e-5, atol=1e-5)
