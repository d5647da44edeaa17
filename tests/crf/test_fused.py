"""The fused mean field behind ``DenseCRF`` against the plain loop over single filters."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from napari_deepcrf.crf import CRFParameters, DenseCRF
from napari_deepcrf.crf import fused as seam
from napari_deepcrf.crf.mean_field import mean_field

PARAMETERS = CRFParameters(w_spatial=2, theta_gamma=2.5, w_bilateral=4, theta_alpha=20)
VARIANTS = {
    "fast": {},
    "accurate": {"quality": "accurate"},
    "no self term": {"self_term": False},
    "accurate, no self term": {"quality": "accurate", "self_term": False},
    "accurate, full": {"quality": "accurate", "compatibility": "full", "num_classes": 3},
    "accurate, full, no self term": {
        "quality": "accurate",
        "compatibility": "full",
        "num_classes": 3,
        "self_term": False,
        "normalization": "none",
    },
    "diagonal": {"compatibility": "diagonal", "num_classes": 3},
    "full": {"compatibility": "full", "num_classes": 3},
    "full, no self term": {"compatibility": "full", "num_classes": 3, "self_term": False},
    "after": {"normalization": "after"},
    "before": {"normalization": "before"},
    "none": {"normalization": "none"},
}


def inputs(height: int, width: int, labels: int = 3, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(height + seed)
    noise = torch.rand(1, 3, height, width, generator=generator) * 255
    image = torch.nn.functional.avg_pool2d(noise, 3, 1, 1)
    return 2 * torch.randn(1, labels, height, width, generator=generator), image


def make(variant: str) -> DenseCRF:
    crf = DenseCRF(PARAMETERS, iterations=3, backend="numba", **VARIANTS[variant])
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in crf.compatibility.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    return crf


@pytest.mark.parametrize("size", [(1, 9), (37, 23)])
@pytest.mark.parametrize("variant", VARIANTS)
def test_marginals_equal_the_plain_loop(variant, size):
    scores, image = inputs(*size)
    with torch.no_grad():
        problem = make(variant).problem(scores, image)
        fused = seam.fused_mean_field(problem, 3, keep_all=True)
        assert fused is not None
        torch.testing.assert_close(fused, mean_field(problem, 3), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("variant", VARIANTS)
def test_gradients_of_all_parameters_equal_the_plain_loop(variant, monkeypatch):
    (scores, image), (others, second) = inputs(37, 23), inputs(37, 23, seed=5)
    scores, image = torch.cat([scores, others]), torch.cat([image, second])
    crf = make(variant)
    leaves = [scores.requires_grad_(), *crf.parameters()]

    def gradients(run):
        marginals = run(scores, image)[..., 1, :, :]
        return torch.autograd.grad(-marginals.log().mean(), leaves)

    own = gradients(crf), gradients(crf.trace)
    monkeypatch.setattr("napari_deepcrf.crf.fused.fused_mean_field", lambda *_, **__: None)
    for fused, run in zip(own, (crf, crf.trace), strict=True):
        for found, expected in zip(fused, gradients(run), strict=True):
            assert (found - expected).norm() <= 1e-4 * expected.norm()


def test_what_the_fused_path_lacks_comes_from_the_plain_loop():
    """A grid of three axes."""
    scores, volume = (tensor.view(1, 3, 3, 4, 9) for tensor in inputs(12, 9))
    results = []
    for backend, dtype in (("numba", torch.float32), ("torch", torch.float64)):
        crf = DenseCRF(PARAMETERS, quality="accurate", image_dims=3, backend=backend).to(dtype)
        assert seam.fused_mean_field(crf.problem(scores, volume), 1, keep_all=False) is None
        leaf = scores.to(dtype).requires_grad_()
        marginals = crf(leaf, volume)
        gradients = torch.autograd.grad(marginals.square().sum(), [leaf, *crf.parameters()])
        results.append([marginals.detach(), *gradients])
    for found, expected in zip(*results, strict=True):
        assert (found.double() - expected).norm() <= 1e-4 * expected.norm()


def test_more_rows_than_16_bits_number():
    """Nearly every pixel on its own: the rows of a chunk are numbered in 32 bits."""
    generator = torch.Generator().manual_seed(0)
    image = 255 * torch.rand(1, 3, 131, 150, generator=generator)
    scores = torch.randn(1, 3, 131, 150, generator=generator).requires_grad_()
    crf = DenseCRF(CRFParameters(theta_alpha=2, theta_beta=40), backend="numba")
    prepared = crf.prepare(image)
    assert prepared.kernels[1].lattice.row.dtype.itemsize == 4
    problem = crf.problem(scores, image, prepared=prepared)
    results = []
    for trace in (seam.fused_mean_field(problem, 2, keep_all=True), mean_field(problem, 2)):
        gradients = torch.autograd.grad(
            trace[-1].square().sum(), [scores, *crf.parameters()], retain_graph=True
        )
        results.append([trace.detach(), *gradients])
    for found, expected in zip(*results, strict=True):
        assert (found - expected).norm() <= 1e-4 * expected.norm()


def test_the_last_marginals_are_those_of_the_trace():
    scores, image = inputs(37, 23)
    crf = make("fast")
    with torch.no_grad():
        assert torch.equal(crf(scores, image), crf.trace(scores, image)[-1])


@pytest.mark.parametrize("variant", ["fast", "accurate"])
def test_threads_change_nothing(variant):
    scores, image = inputs(260, 257)  # two chunks of pixels
    crf = make(variant)
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 2, 4):
            torch.set_num_threads(count)
            with torch.no_grad():
                results.append(crf.trace(scores, image))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(results[0], other) for other in results[1:])
