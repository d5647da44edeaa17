"""Triton's whole mean fields and their gradients against the plain PyTorch ones."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from triton_inputs import (
    DEVICE,
    INTERPRETED,
    QUALITIES,
    features_of,
    full,
    lattices_for,
    mean_field_inputs,
    random,
    scaled,
)

from napari_deepcrf.crf import DenseCRF
from napari_deepcrf.crf.mean_field import MeanFieldProblem, PairwiseTerm
from napari_deepcrf.crf.mean_field import mean_field as plain_mean_field
from napari_deepcrf.lattice import Lattice
from napari_deepcrf.lattice.gaussians import LatticeGaussian
from napari_deepcrf.lattice.scaled import ScaledLattice
from napari_deepcrf.lattice.torch_ops import TorchLattice
from napari_deepcrf.lattice.triton_build import owned
from napari_deepcrf.lattice.triton_mean_field import mean_field


def run_fused(lattices: list[Lattice], inputs: dict[str, Tensor], updates: int) -> Tensor:
    return mean_field(
        inputs["scores"],
        scaled(lattices, inputs),
        updates,
        compatibility=inputs.get("compatibility"),
        self_weight=inputs.get("self_weight"),
    )


def run_plain(lattices: list[Lattice], inputs: dict[str, Tensor], updates: int) -> Tensor:
    terms = [
        PairwiseTerm(
            LatticeGaussian(lattice, inputs[f"weight{m}"]),
            inputs[f"pre{m}"],
            inputs[f"post{m}"],
            inputs["scores"].new_ones(()),
        )
        for m, lattice in enumerate(lattices)
    ]
    problem = MeanFieldProblem(
        inputs["scores"], terms, inputs.get("compatibility"), inputs.get("self_weight")
    )
    return plain_mean_field(problem, updates)


CASES = [
    (full(31, 30_011), 3, 2, None, False, QUALITIES[0]),
    (full(13, 30_011), 5, 1, "diagonal", True, QUALITIES[0]),
    (full(13, 30_011), 21, 2, "full", True, QUALITIES[0]),
    (full(13, 10_007), 2, 3, None, True, QUALITIES[2]),
    (1, 1, 1, None, False, QUALITIES[0]),
    (full(5, 5_003), 3, 0, "full", True, QUALITIES[0]),
]


@pytest.mark.parametrize(("count", "labels", "updates", "mixing", "own", "quality"), CASES)
def test_mean_field_and_gradients_agree(count, labels, updates, mixing, own, quality):
    upstream = random(updates + 1, count, labels, seed=9)
    results = []
    for run, backend in ((run_fused, "triton"), (run_plain, "torch")):
        # The reference, in double precision, has the very lattices and weights of the kernels.
        lattices = lattices_for(count, quality)
        inputs = mean_field_inputs(lattices, labels, mixing, own)
        if backend == "torch":
            lattices = [as_reference(lattice) for lattice in lattices]
            inputs = {name: tensor.double() for name, tensor in inputs.items()}
        inputs = {name: tensor.requires_grad_() for name, tensor in inputs.items()}
        trace = run(lattices, inputs, updates)
        (trace * upstream).sum().backward()
        results.append({"trace": trace.detach()} | {k: v.grad for k, v in inputs.items()})
    fused, plain = results
    assert fused["trace"].shape == (updates + 1, count, labels)
    for name, reference in plain.items():
        if reference is None:  # no update, no gradient
            assert fused[name] is None or not fused[name].any(), name
            continue
        error = (fused[name].double() - reference).norm() / reference.norm().clamp(min=1e-3)
        assert error < 1e-5, name


def as_reference(lattice: Lattice) -> Lattice:
    return TorchLattice(
        vertex=lattice.vertex,
        weight=lattice.weight.double(),
        rank=lattice.rank,
        neighbours=lattice.neighbours,
        passes=lattice.passes,
        backend="torch",
    )


@pytest.mark.parametrize("quality", [QUALITIES[0], QUALITIES[2]])
def test_a_batch_equals_its_images_bit_for_bit(quality):
    images, size, labels, updates = 3, full(4, 10_007), 2, 2
    batch = lattices_for(images * size, quality, images=images)
    inputs = mean_field_inputs(batch, labels, "full", own=True)
    upstream = random(updates + 1, images * size, labels, seed=9)

    def run(lattices: list[Lattice], own: slice) -> dict[str, Tensor]:
        leaves = {
            name: (tensor if name == "compatibility" else tensor[own]).clone().requires_grad_()
            for name, tensor in inputs.items()
        }
        trace = run_fused(lattices, leaves, updates)
        (trace * upstream[:, own]).sum().backward()
        return {"trace": trace.detach().transpose(0, 1)} | {k: v.grad for k, v in leaves.items()}

    whole = run(batch, slice(None))
    parts = []
    for first in range(0, images * size, size):
        own = slice(first, first + size)
        lattices = [
            Lattice.build(features_of(images * size, dim)[own], backend="triton", **q)
            for dim, q in ((2, QUALITIES[0]), (3, quality))
        ]
        parts.append(run(lattices, own))
    for name, gradient in whole.items():
        if name == "compatibility":  # adds up over the images
            torch.testing.assert_close(gradient, sum(part[name] for part in parts))
        else:
            assert torch.equal(gradient, torch.cat([part[name] for part in parts])), name


def test_last_marginals_alone_are_those_of_the_trace():
    lattices = lattices_for(full(11, 5_003), QUALITIES[0])
    inputs = mean_field_inputs(lattices)
    for updates in (0, 1, 2):
        trace = run_fused(lattices, inputs, updates)
        last = mean_field(inputs["scores"], scaled(lattices, inputs), updates, keep_all=False)
        assert torch.equal(last, trace[-1:])


def test_repeated_runs_are_equal_bit_for_bit():
    count = full(150, 100_003)
    features = random(count, 2) * (0.1 if INTERPRETED else 3.0)
    runs = []
    for _ in range(2):
        lattice = owned(Lattice.build(features, backend="triton"))
        weight, ones = lattice.weight.clone().requires_grad_(), torch.ones(count, device=DEVICE)
        kernel = ScaledLattice(lattice, weight, ones, ones)
        trace = mean_field(random(count, 2, seed=1), [kernel], 2)
        trace.square().sum().backward()
        runs.append((trace.detach(), weight.grad))
    assert lattice.split_vertex.numel() > 0
    for one, other in zip(*runs, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    "options",
    [
        {"compatibility": "full", "num_classes": 3, "self_term": False},
        {"quality": "accurate", "iterations": 1},
    ],
)
def test_dense_crf_agrees_with_the_reference(options):
    shape = (full(1, 60), full(3, 77))
    scores = random(2, 3, *shape)
    image = 100 + random(2, 3, *shape, seed=1) * full(3, 50)  # few vertices, or many
    results = []
    for backend in ("triton", "torch"):
        crf = DenseCRF(backend=backend, **({"iterations": 2} | options)).to(DEVICE)
        leaf = scores.clone().requires_grad_()
        marginals = crf(leaf, image)
        (marginals * scores).sum().backward()
        gradients = {name: p.grad for name, p in crf.named_parameters()}
        results.append({"marginals": marginals.detach(), "scores": leaf.grad} | gradients)
    own, reference = results
    for name, expected in reference.items():
        close = {"rtol": 1e-3, "atol": 1e-4 * max(float(expected.abs().max()), 1e-3)}
        torch.testing.assert_close(own[name], expected, **close, msg=lambda m, n=name: f"{n}: {m}")
