"""The Triton kernels against the plain PyTorch reference; run by ``test_triton.py``.

Runs on the GPU at full size, or with TRITON_INTERPRET=1 on the CPU at small odd sizes. Kernels
assert their indices in the interpreter; uninitialised memory is poisoned with NaN.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import fields, replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from triton import knobs
from triton.runtime.errors import InterpreterError
from triton.runtime.interpreter import InterpreterOptions, interpreter_builder

from napari_deepcrf.crf import DenseCRF
from napari_deepcrf.crf.mean_field import MeanFieldProblem, PairwiseTerm
from napari_deepcrf.crf.mean_field import mean_field as plain_mean_field
from napari_deepcrf.lattice import (
    Lattice,
    permutohedral_filter,
    torch_ops,
    triton_gpu,
    triton_graph,
)
from napari_deepcrf.lattice.gaussians import LatticeGaussian
from napari_deepcrf.lattice.triton_buffers import MeanFieldBuffers
from napari_deepcrf.lattice.triton_build import PIECE, owned
from napari_deepcrf.lattice.triton_embed import numbering
from napari_deepcrf.lattice.triton_join import join
from napari_deepcrf.lattice.triton_mean_field import mean_field, potentials
from napari_deepcrf.lattice.triton_updates import run_forward

INTERPRETED = bool(knobs.runtime.interpret)
DEVICE = torch.device("cpu" if INTERPRETED else "cuda")
# Check every device_assert, and integers for overflow.
interpreter_builder.options = InterpreterOptions(debug=True)

QUALITIES = [{"ring": False, "passes": 1}, {"ring": True, "passes": 1}, {"ring": True, "passes": 2}]

# Poisoning needs PyTorch's deterministic mode, which warns of what has none on a GPU.
pytestmark = pytest.mark.filterwarnings("ignore:.*deterministic")

# Sums of float32 products in another order: a few units in the last place of the largest term.
CLOSE = {"rtol": 2e-5, "atol": 2e-5}


@pytest.fixture(autouse=True)
def poison() -> Iterator[None]:
    """Fill every torch.empty with NaN."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(False)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE)


def features_of(count: int, dim: int) -> Tensor:
    """Points close enough together to share vertices."""
    return random(count, dim) * (0.5 if INTERPRETED else 3.0)


def full(small: int, large: int) -> int:
    return small if INTERPRETED else large


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


def mean_field_inputs(
    lattices: list[Lattice], labels: int = 3, mixing: str | None = None, own: bool = False
) -> dict[str, Tensor]:
    """Scores, factors, weights, µ and self weights; messages about as large as the scores."""
    count = lattices[0].num_points
    inputs = {"scores": random(count, labels)}
    for m, lattice in enumerate(lattices):
        ones = torch.ones(count, 1, device=DEVICE)
        blurred = torch_ops.blur(lattice, torch_ops.splat(lattice, ones), reverse=False)
        row_sum = lattice.alpha * torch_ops.slice(lattice, blurred).mean()
        inputs[f"weight{m}"] = lattice.weight.clone()
        inputs[f"pre{m}"] = random(count, seed=2 * m + 1).sigmoid()
        inputs[f"post{m}"] = random(count, seed=2 * m + 2).exp() / row_sum
    if mixing == "diagonal":
        inputs["compatibility"] = random(labels, seed=7).exp()
    if mixing == "full":
        table = random(labels, labels, seed=7)
        inputs["compatibility"] = table + table.T
    if own:
        inputs["self_weight"] = random(count, seed=8).sigmoid()
    return inputs


def lattices_for(count: int, quality: dict[str, Any]) -> list[Lattice]:
    """A plain lattice and one of the given quality."""
    plain = Lattice.build(features_of(count, 2), backend="triton")
    return [plain, Lattice.build(features_of(count, 3), backend="triton", **quality)]


def folded(
    lattices: list[Lattice], inputs: dict[str, Tensor]
) -> list[tuple[Lattice, Tensor, Tensor]]:
    return [
        (
            lattice,
            inputs[f"pre{m}"][:, None] * inputs[f"weight{m}"],
            lattice.alpha * inputs[f"post{m}"][:, None] * inputs[f"weight{m}"],
        )
        for m, lattice in enumerate(lattices)
    ]


def run_fused(lattices: list[Lattice], inputs: dict[str, Tensor], updates: int) -> Tensor:
    return mean_field(
        inputs["scores"],
        folded(lattices, inputs),
        updates,
        compatibility=inputs.get("compatibility"),
        self_weight=inputs.get("self_weight"),
    )


def run_plain(lattices: list[Lattice], inputs: dict[str, Tensor], updates: int) -> Tensor:
    terms = [
        PairwiseTerm(
            LatticeGaussian(lattice, inputs[f"weight{m}"]), inputs[f"pre{m}"], inputs[f"post{m}"]
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
    arrays = {field.name: getattr(lattice, field.name) for field in fields(Lattice)}
    return Lattice(**arrays | {"weight": lattice.weight.double(), "backend": "torch"})


def test_last_marginals_alone_are_those_of_the_trace():
    lattices = lattices_for(full(11, 5_003), QUALITIES[0])
    inputs = mean_field_inputs(lattices)
    for updates in (0, 1, 2):
        trace = run_fused(lattices, inputs, updates)
        last = mean_field(inputs["scores"], folded(lattices, inputs), updates, keep_all=False)
        assert torch.equal(last, trace[-1:])


def test_repeated_runs_are_equal_bit_for_bit():
    count = full(150, 100_003)
    features = random(count, 2) * (0.1 if INTERPRETED else 3.0)
    runs = []
    for _ in range(2):
        lattice = owned(Lattice.build(features, backend="triton"))
        weights = (lattice, lattice.weight.clone().requires_grad_(), lattice.weight)
        trace = mean_field(random(count, 2, seed=1), [weights], 2)
        trace.square().sum().backward()
        runs.append((trace.detach(), weights[1].grad))
    assert lattice.split_vertex.numel() > 0
    for one, other in zip(*runs, strict=True):
        assert torch.equal(one, other)


def test_buffers_serve_other_lattices_of_the_same_sizes():
    count = full(11, 20_011)
    small, large = (
        [Lattice.build(features_of(count, 2) * s, backend="triton")] for s in (0.3, 1.0)
    )
    assert small[0].num_vertices < large[0].num_vertices
    problems = []
    for lattices in (large, small):
        inputs = mean_field_inputs(lattices)
        ((_, splat_weight, slice_weight),) = folded(lattices, inputs)
        numbers = potentials(inputs["scores"], splat_weight.T, slice_weight.T, None, None)
        problems.append((join([owned(lattices[0])]), numbers))
    buffers = MeanFieldBuffers(*problems[0])
    keep = {"keep_marginals": True, "keep_blurred": False}
    for joined, numbers in (*problems, problems[0]):
        assert buffers.fit(joined, numbers)
        buffers.load_lattices(joined)
        buffers.load_potentials(numbers)
        own, _ = run_forward(buffers.joined, buffers.numbers, 2, **keep)
        direct, _ = run_forward(joined, numbers, 2, **keep)
        assert torch.equal(own, direct)


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
        numbering([-1e6] * 5, [1e6] * 5, 1)
    kernel = (lattice, lattice.weight, lattice.weight)
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


def test_keys_take_the_narrowest_integer_that_holds_them():
    assert numbering([0.0] * 2, [9.0] * 2, 1).dtype == torch.int32
    wide = numbering([0.0] * 5, [500.0] * 5, 1)
    assert wide.dtype == torch.int64
    assert wide.size >= 2**31
    features = torch.cat([features_of(5, 5), features_of(4, 5) + 500.0])
    results = [
        permutohedral_filter(random(9, 1), features, backend=backend)
        for backend in ("triton", "torch")
    ]
    torch.testing.assert_close(*results, **CLOSE)


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


@pytest.mark.skipif(not INTERPRETED, reason="plays the CUDA graph that a GPU has")
def test_graphs_are_captured_for_repeated_sizes_and_reused(monkeypatch):
    class Graph:
        def replay(self) -> None:
            graph = triton_graph._latest[DEVICE]
            graph._marginals.copy_(graph._launch())

    captured = []
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(
        torch.cuda, "graph", lambda graph, **_: captured.append(graph) or nullcontext()
    )
    monkeypatch.setattr(torch.cuda, "Event", lambda: SimpleNamespace(record=lambda: None))
    stream = SimpleNamespace(wait_event=lambda event: None)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: stream)
    triton_graph.release_graphs()
    steps = [(1.0, 1, 0), (1.0, 1, 1), (1.0, 1, 1), (0.9, 1, 1), (1.0, 0, 1), (1.0, 0, 2)]
    for scale, iterations, captures in steps:
        lattices = [owned(Lattice.build(features_of(5, 1) * scale, backend="triton"))]
        inputs = mean_field_inputs(list(lattices))
        ((_, splat_weight, slice_weight),) = folded(list(lattices), inputs)
        numbers = potentials(inputs["scores"], splat_weight.T, slice_weight.T, None, None)
        with torch.inference_mode():
            result = triton_graph.replay(lattices, numbers, iterations, keep_all=False)
        direct, _ = run_forward(
            join(lattices), numbers, iterations, keep_marginals=False, keep_blurred=False
        )
        assert torch.equal(result, direct)
        assert len(captured) == captures
    assert len(triton_graph._latest) == 1
    triton_graph.release_graphs()
    assert not triton_graph._latest


@pytest.mark.skipif(INTERPRETED, reason="CUDA graphs need a GPU")
def test_graph_replays_what_a_direct_run_gives():
    triton_graph.release_graphs()
    keep = {"keep_marginals": True, "keep_blurred": False}
    for scale in (1.0, 1.0, 0.97, 1.02, 0.5):
        features = features_of(50_021, 3) * scale
        lattices = [Lattice.build(features, backend="triton")]
        inputs = mean_field_inputs(lattices, labels=21)
        ((_, splat_weight, slice_weight),) = folded(lattices, inputs)
        numbers = potentials(inputs["scores"], splat_weight.T, slice_weight.T, None, None)
        direct, _ = run_forward(join([owned(lattices[0])]), numbers, 3, **keep)
        for _ in range(2):
            assert torch.equal(run_fused(lattices, inputs, 3), direct[:, :, :21])
    assert len(triton_graph._latest) == 1
    triton_graph.release_graphs()
    assert not triton_graph._latest
