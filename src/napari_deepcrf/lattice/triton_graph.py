"""Whole mean fields as CUDA graphs: captured when the same sizes come again, then replayed.

A mean field is some fifty short kernels, whose launches from Python take longer than the kernels.
The latest graph of every device is kept with its buffers until ``release_graphs``.
"""

from __future__ import annotations

import logging
import threading
import weakref
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from napari_deepcrf.lattice.triton_buffers import MeanFieldBuffers, fixed_sizes
from napari_deepcrf.lattice.triton_build import TritonLattice
from napari_deepcrf.lattice.triton_join import JoinedLattices, join
from napari_deepcrf.lattice.triton_updates import Potentials, run_forward

LARGEST = 2**25
"""Marginals N C of the largest mean field that is captured: the kernels of larger ones take
longer than their launches, and their buffers would take gigabytes from other programs."""

_logger = logging.getLogger(__name__)
_lock = threading.Lock()


class MeanFieldGraph:
    """A captured mean field with its input buffers and its result."""

    def __init__(
        self,
        lattices: Sequence[TritonLattice],
        joined: JoinedLattices,
        numbers: Potentials,
        iterations: int,
        *,
        keep_all: bool,
    ) -> None:
        self._run = iterations, keep_all
        self._buffers = MeanFieldBuffers(joined, numbers)
        self._load(lattices, joined)
        self._buffers.load_potentials(numbers)
        # Compiles the kernels for these buffers, which must not happen during the capture.
        self._launch()
        self._graph = torch.cuda.CUDAGraph()
        # On a stream of this device: by default all captures run on that of the first device.
        stream = torch.cuda.Stream(numbers.scores.device)  # type: ignore[no-untyped-call]
        # A capture that fails leaves its stream current; the outer context puts ours back. Other
        # threads, such as a viewer's, may allocate meanwhile.
        with (
            torch.cuda.stream(torch.cuda.current_stream()),
            torch.cuda.graph(self._graph, stream=stream, capture_error_mode="thread_local"),
        ):
            self._marginals = self._launch()
        self._done = torch.cuda.Event()  # type: ignore[no-untyped-call]

    def replay(
        self,
        lattices: Sequence[TritonLattice],
        numbers: Potentials,
        iterations: int,
        *,
        keep_all: bool,
    ) -> Tensor | None:
        """Marginals as a copy of their own, or None where this graph cannot serve."""
        if (iterations, keep_all) != self._run:
            return None
        loaded = [reference() for reference in self._loaded]
        same = len(loaded) == len(lattices) and all(map(_is, loaded, lattices))
        joined = self._buffers.joined if same else join(lattices)
        if not self._buffers.fit(joined, numbers):
            return None
        torch.cuda.current_stream().wait_event(self._done)
        if not same:
            self._load(lattices, joined)
        self._buffers.load_potentials(numbers)
        self._graph.replay()
        result = self._marginals.clone()
        self._done.record()
        return result

    def finish(self) -> None:
        """Wait for the last replay, whichever stream it ran on."""
        self._done.synchronize()

    def _load(self, lattices: Sequence[TritonLattice], joined: JoinedLattices) -> None:
        self._buffers.load_lattices(joined)
        self._loaded = [weakref.ref(lattice) for lattice in lattices]

    def _launch(self) -> Tensor:
        iterations, keep_all = self._run
        marginals, _ = run_forward(
            self._buffers.joined,
            self._buffers.numbers,
            iterations,
            keep_marginals=keep_all,
            keep_blurred=False,
        )
        return marginals


@dataclass
class _Slot:
    """A device's graph and what decides about its next one."""

    graph: MeanFieldGraph | None = None
    last_sizes: object = None
    refused_sizes: object = None
    """Sizes whose capture failed."""

    def drop_graph(self) -> None:
        """Forget the graph, once its last replay has ended."""
        if self.graph is not None:
            self.graph.finish()
        self.graph = None


_slots: defaultdict[torch.device, _Slot] = defaultdict(_Slot)


def replay(
    lattices: Sequence[TritonLattice], numbers: Potentials, iterations: int, *, keep_all: bool
) -> Tensor:
    """Marginals (T+1, N, C), or the last (1, N, C), of lattices on a CUDA device.

    The first mean field of new sizes runs without a graph: a folder of images of all sizes would
    otherwise pay for a capture with each.
    """
    # Buffers made in inference mode could not be written to outside of it later on.
    with _lock, torch.inference_mode(False), torch.no_grad():
        slot = _slots[numbers.scores.device]
        if slot.graph is not None:
            result = slot.graph.replay(lattices, numbers, iterations, keep_all=keep_all)
            if result is not None:
                return result
        joined = join(lattices)
        sizes = (fixed_sizes(joined, numbers), iterations, keep_all)
        again = sizes == slot.last_sizes and sizes != slot.refused_sizes
        slot.last_sizes = sizes
        if again and numbers.scores.numel() <= LARGEST:
            slot.drop_graph()  # its memory first
            try:
                graph = MeanFieldGraph(lattices, joined, numbers, iterations, keep_all=keep_all)
            except RuntimeError as error:
                slot.refused_sizes = sizes
                reason = str(error).partition("\n")[0]
                _logger.warning("No CUDA graph, the mean field runs kernel by kernel: %s", reason)
            else:
                slot.graph = graph
                result = graph.replay(lattices, numbers, iterations, keep_all=keep_all)
                assert result is not None
                return result
    return run_forward(joined, numbers, iterations, keep_marginals=keep_all, keep_blurred=False)[0]


def release_graphs() -> None:
    """Forget the graphs, so that their memory goes back to PyTorch's allocator."""
    with _lock:
        for slot in _slots.values():
            slot.drop_graph()
        _slots.clear()


def _is(one: object, other: object) -> bool:
    return one is other
