"""Mean fields from buffers that are overwritten, and from CUDA graphs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from types import SimpleNamespace

import pytest
import torch
from triton_inputs import DEVICE, INTERPRETED, features_of, full, mean_field_inputs, scaled

from napari_deepcrf.lattice import Lattice, triton_graph
from napari_deepcrf.lattice.triton_buffers import MeanFieldBuffers
from napari_deepcrf.lattice.triton_build import owned
from napari_deepcrf.lattice.triton_join import join
from napari_deepcrf.lattice.triton_mean_field import mean_field, potentials
from napari_deepcrf.lattice.triton_updates import run_forward


def test_buffers_serve_other_lattices_of_the_same_sizes():
    count = full(11, 20_011)
    small, large = (
        [Lattice.build(features_of(count, 2) * s, backend="triton")] for s in (0.3, 1.0)
    )
    assert small[0].num_vertices < large[0].num_vertices
    problems = []
    for lattices in (large, small):
        inputs = mean_field_inputs(lattices)
        [(splat_weight, slice_weight)] = [k.folded() for k in scaled(lattices, inputs)]
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


class FakeCuda:
    """Plays what CUDA graphs need of ``torch.cuda``: a graph runs its launches again."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.captures: list[torch.device] = []
        self.waits = 0
        self.fails = False
        for name in ("CUDAGraph", "Event", "Stream", "current_stream", "graph", "stream"):
            monkeypatch.setattr(torch.cuda, name, getattr(self, name))

    def CUDAGraph(self) -> SimpleNamespace:  # noqa: N802 - PyTorch's names
        return SimpleNamespace(replay=self.replay)

    def Event(self) -> SimpleNamespace:  # noqa: N802
        return SimpleNamespace(record=lambda: None, synchronize=self.wait)

    def Stream(self, device: torch.device) -> SimpleNamespace:  # noqa: N802
        return SimpleNamespace(device=device)

    def current_stream(self) -> SimpleNamespace:
        return SimpleNamespace(wait_event=lambda event: None)

    def stream(self, stream: SimpleNamespace) -> AbstractContextManager[None]:
        return nullcontext()

    def graph(
        self, graph: SimpleNamespace, *, stream: SimpleNamespace, capture_error_mode: str
    ) -> AbstractContextManager[None]:
        assert capture_error_mode == "thread_local"
        if self.fails:
            raise torch.OutOfMemoryError("no room for a graph")
        self.captures.append(stream.device)
        return nullcontext()

    def replay(self) -> None:
        graph = triton_graph._slots[DEVICE].graph
        graph._marginals.copy_(graph._launch())

    def wait(self) -> None:
        self.waits += 1


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCuda]:
    triton_graph.release_graphs()
    yield FakeCuda(monkeypatch)
    triton_graph.release_graphs()


def replay_and_compare(scale: float, iterations: int) -> None:
    """A mean field through ``replay``, asserted to equal a direct run."""
    lattices = [owned(Lattice.build(features_of(5, 1) * scale, backend="triton"))]
    inputs = mean_field_inputs(list(lattices))
    [(splat_weight, slice_weight)] = [k.folded() for k in scaled(list(lattices), inputs)]
    numbers = potentials(inputs["scores"], splat_weight.T, slice_weight.T, None, None)
    with torch.inference_mode():
        result = triton_graph.replay(lattices, numbers, iterations, keep_all=False)
    keep = {"keep_marginals": False, "keep_blurred": False}
    direct, _ = run_forward(join(lattices), numbers, iterations, **keep)
    assert torch.equal(result, direct)


@pytest.mark.skipif(not INTERPRETED, reason="plays the CUDA graph that a GPU has")
def test_graphs_are_captured_for_repeated_sizes_and_reused(cuda):
    steps = [(1.0, 1, 0), (1.0, 1, 1), (1.0, 1, 1), (0.9, 1, 1), (1.0, 0, 1), (1.0, 0, 2)]
    for scale, iterations, captures in steps:
        replay_and_compare(scale, iterations)
        assert cuda.captures == [DEVICE] * captures
    # The graph that was replaced may still have been running.
    assert cuda.waits == 1
    triton_graph.release_graphs()
    assert cuda.waits == 2
    assert not triton_graph._slots


@pytest.mark.skipif(not INTERPRETED, reason="plays the CUDA graph that a GPU has")
def test_a_failed_capture_is_told_once_and_leaves_a_direct_run(cuda, caplog):
    cuda.fails = True
    for _ in range(4):
        replay_and_compare(1.0, 0)
    assert [record.message for record in caplog.records] == [
        "No CUDA graph, the mean field runs kernel by kernel: no room for a graph"
    ]
    cuda.fails = False
    triton_graph.release_graphs()
    for _ in range(2):
        replay_and_compare(1.0, 0)
    assert cuda.captures == [DEVICE]


@pytest.mark.skipif(not INTERPRETED, reason="plays the CUDA graph that a GPU has")
def test_large_mean_fields_are_not_captured(cuda, monkeypatch):
    monkeypatch.setattr(triton_graph, "LARGEST", 5 * 4 - 1)  # 5 points, 3 labels and a padded one
    for _ in range(3):
        replay_and_compare(1.0, 0)
    assert cuda.captures == []


@pytest.mark.skipif(INTERPRETED, reason="CUDA graphs need a GPU")
def test_graph_replays_what_a_direct_run_gives():
    triton_graph.release_graphs()
    keep = {"keep_marginals": True, "keep_blurred": False}
    for scale in (1.0, 1.0, 0.97, 1.02, 0.5):
        features = features_of(50_021, 3) * scale
        lattices = [Lattice.build(features, backend="triton")]
        inputs = mean_field_inputs(lattices, labels=21)
        [(splat_weight, slice_weight)] = [k.folded() for k in scaled(lattices, inputs)]
        numbers = potentials(inputs["scores"], splat_weight.T, slice_weight.T, None, None)
        direct, _ = run_forward(join([owned(lattices[0])]), numbers, 3, **keep)
        for _ in range(2):
            assert torch.equal(
                mean_field(inputs["scores"], scaled(lattices, inputs), 3), direct[:, :, :21]
            )
    assert triton_graph._slots[DEVICE].graph is not None
    triton_graph.release_graphs()
    assert not triton_graph._slots
