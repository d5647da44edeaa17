"""The launches of a whole mean field on the GPU, forward and backward."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import triton
from torch import Tensor

from napari_deepcrf.lattice import triton_launch
from napari_deepcrf.lattice.triton_join import JoinedLattices
from napari_deepcrf.lattice.triton_update_kernels import backward_kernel, update_kernel


@dataclass(frozen=True, eq=False)
class Potentials:
    """The numbers of a mean field: N points, K corners, C labels with those that pad."""

    scores: Tensor
    """(N, C), -inf for the labels that pad."""
    splat_weight: Tensor
    """(K, N)."""
    slice_weight: Tensor
    """(K, N)."""
    compatibility: Tensor | None
    """(C, C) or its diagonal (C,), padded with zeros; None for the identity."""
    self_weight: Tensor | None
    """(N,)."""


def pad_labels(labels: int) -> int:
    """Labels of a row in memory: whole 32-byte sectors, or a power of two below one."""
    return min(int(triton.next_power_of_2(labels)), (labels + 7) // 8 * 8)


def run_forward(
    joined: JoinedLattices,
    numbers: Potentials,
    iterations: int,
    *,
    keep_marginals: bool,
    keep_blurred: bool,
) -> tuple[Tensor, Tensor]:
    """Marginals (T+1, N, C), or the last (1, N, C), and V (T, M, C), or the last (1, M, C).

    Allocates and launches on the current stream and never waits for it, so that it can be
    captured in a CUDA graph.
    """
    num_points, channels = numbers.scores.shape
    num_vertices = joined.neighbours.shape[1]
    states = iterations + 1 if keep_marginals else 2
    trace = numbers.scores.new_empty(states, num_points, channels)
    blurred = trace.new_empty(iterations if keep_blurred else 1, num_vertices, channels)
    blurring = _Blurring(joined, channels)
    weight = numbers.splat_weight.flatten()[joined.splat_position]
    _update(joined, numbers, None, trace[0], trace[0])
    for t in range(iterations):
        previous, following = trace[t % states], trace[(t + 1) % states]
        z = blurred[t if keep_blurred else 0]
        blurring.splat_and_blur(weight, previous, z, reverse=False)
        _update(joined, numbers, z, previous, following)
    last = iterations % 2
    return trace if keep_marginals else trace[last : last + 1], blurred


class Gradients:
    """The back-tracking through the updates t = T..1 [paper, eq. 7, 8 and figure 3]."""

    def __init__(self, numbers: Potentials, *, needs_compatibility: bool) -> None:
        self._numbers = numbers
        self.scores = torch.zeros_like(numbers.scores)
        self.splat_weight = torch.zeros_like(numbers.splat_weight)
        self.slice_weight = torch.zeros_like(numbers.slice_weight)
        self.self_weight = _zeros_like(numbers.self_weight)
        self.compatibility = _zeros_like(numbers.compatibility) if needs_compatibility else None
        self._message = torch.empty_like(numbers.scores)
        # Without a compatibility the message's gradient is that of the logits.
        plain = numbers.compatibility is None
        self._logits = self._message if plain else torch.empty_like(numbers.scores)

    def run(self, joined: JoinedLattices, trace: Tensor, blurred: Tensor, upstream: Tensor) -> None:
        """Add everything up from upstream (T+1, N, C) and ``run_forward``'s results."""
        iterations, channels = trace.shape[0] - 1, trace.shape[2]
        blurring = _Blurring(joined, channels)
        weight = self._numbers.slice_weight.flatten()[joined.splat_position]
        reverse = trace.new_empty(joined.neighbours.shape[1], channels)
        self._step(joined, trace[iterations], upstream[iterations], None, None)
        for t in range(iterations - 1, -1, -1):
            if self.compatibility is not None:
                self.compatibility += self._by_compatibility(joined, trace[t], blurred[t])
            blurring.splat_and_blur(weight, self._message, reverse, reverse=True)
            self._step(joined, trace[t], upstream[t], blurred[t], reverse)

    def _step(
        self,
        joined: JoinedLattices,
        marginals: Tensor,
        upstream: Tensor,
        z: Tensor | None,
        z_reverse: Tensor | None,
    ) -> None:
        corners, num_points = joined.vertex.shape
        numbers = self._numbers
        constants = _constants(marginals.shape[1], numbers.compatibility)
        backward_kernel[(triton.cdiv(num_points, constants["ROWS"]),)](
            marginals, upstream, self._message, z, z_reverse, joined.vertex,
            numbers.splat_weight, numbers.self_weight, numbers.compatibility, self.scores,
            self._logits, self.splat_weight, self.slice_weight, self.self_weight,
            num_points, joined.neighbours.shape[1],
            CORNERS=0 if z is None else corners, **constants,
        )  # fmt: skip

    def _by_compatibility(self, joined: JoinedLattices, previous: Tensor, z: Tensor) -> Tensor:
        """Messageᵀ ∂logits of the update that made z from the previous marginals."""
        numbers = self._numbers
        message = torch.empty_like(previous)
        strides = (1, previous.shape[0])
        triton_launch.slice_points(z, joined.vertex, numbers.slice_weight, strides, message)
        if numbers.self_weight is not None:
            message -= numbers.self_weight[:, None] * previous
        if numbers.compatibility is not None and numbers.compatibility.ndim == 1:
            return (message * self._logits).sum(0)
        return message.T @ self._logits


class _Blurring:
    """Splat and blur with buffers of their own."""

    def __init__(self, joined: JoinedLattices, channels: int) -> None:
        self._joined = joined
        options: dict[str, Any] = {"dtype": torch.float32, "device": joined.vertex.device}
        self._partial = torch.empty(joined.piece_vertex.shape[0], channels, **options)
        rows = joined.neighbours.shape[1]
        self._buffers = [torch.empty(rows, channels, **options) for _ in range(2)]

    def splat_and_blur(self, weight: Tensor, values: Tensor, out: Tensor, *, reverse: bool) -> None:
        """Splat values (N, C) with weight (E,) and blur into out (M, C)."""
        z, spare = self._buffers
        triton_launch.splat(self._joined, weight, values, z, self._partial)
        order = list(zip(self._joined.neighbours, self._joined.taps, strict=True))
        *steps, last = order[::-1] if reverse else order
        for neighbours, tap in steps:
            triton_launch.blur_axis(z, neighbours, tap, spare)
            z, spare = spare, z
        triton_launch.blur_axis(z, *last, out)


def _update(
    joined: JoinedLattices, numbers: Potentials, z: Tensor | None, previous: Tensor, out: Tensor
) -> None:
    """One update, or softmax(scores) where there is no z yet."""
    corners, num_points = joined.vertex.shape
    constants = _constants(out.shape[1], numbers.compatibility)
    update_kernel[(triton.cdiv(num_points, constants["ROWS"]),)](
        numbers.scores, z, joined.vertex, numbers.slice_weight, previous, numbers.self_weight,
        numbers.compatibility, out, num_points, joined.neighbours.shape[1],
        CORNERS=0 if z is None else corners, **constants,
    )  # fmt: skip


def _constants(channels: int, compatibility: Tensor | None) -> dict[str, Any]:
    """Compile-time constants of the fused kernels; a matrix product needs tiles of 16 by 16."""
    mixing = "none" if compatibility is None else ("diagonal", "full")[compatibility.ndim - 1]
    least = 16 if mixing == "full" else 1
    columns = max(triton.next_power_of_2(channels), least)
    rows = max(min(triton_launch.TILE // columns, triton_launch.MOST_ROWS), least)
    return {"COMPATIBILITY": mixing, "CHANNELS": channels, "ROWS": rows, "COLUMNS": columns}


def _zeros_like(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else torch.zeros_like(tensor)
