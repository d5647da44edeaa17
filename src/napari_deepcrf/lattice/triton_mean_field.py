"""Whole mean fields on the GPU: splat, blur and one fused kernel an update; exact gradients.

Everything that scales a pixel before or after filtering (normalisation, kernel weight, alpha) is
folded into two sets of barycentric weights, s for the splat and a for the slice, outside of the
autograd Function. With V = B Σ s_ik q_i the update is

    q ← softmax(scores + (Σ_k a_ik V[v_ik] - self_i q_i) µ)

and its backward pass needs V' = Bᵀ Σ a_ik g_i for the message's gradient g: ∂q_i = Σ_k s_ik
V'[v_ik], ∂a_ik = g_i · V[v_ik], ∂s_ik = q_i · V'[v_ik].
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from napari_deepcrf.lattice.first_order import first_order
from napari_deepcrf.lattice.scaled import ScaledLattice
from napari_deepcrf.lattice.triton_build import ENTRY_LIMIT, TritonLattice, owned
from napari_deepcrf.lattice.triton_join import JoinedLattices, join
from napari_deepcrf.lattice.triton_launch import on_device_of
from napari_deepcrf.lattice.triton_updates import Gradients, Potentials, pad_labels, run_forward

MOST_MIXED = 64
"""Labels of the largest full µ, which each program holds as a whole."""


def mean_field(
    scores: Tensor,
    kernels: Sequence[ScaledLattice],
    iterations: int,
    *,
    grids: Sequence[object] = (),
    compatibility: Tensor | None = None,
    self_weight: Tensor | None = None,
    keep_all: bool = True,
) -> Tensor:
    """Run the updates of all images of the lattices [paper, eq. 5].

    Without gradients on a CUDA device, sizes that come again run from one CUDA graph
    (``triton_graph``).

    Parameters
    ----------
    scores
        (N, L) float32.
    kernels
        On lattices that Triton has built.
    iterations
        Updates T.
    grids
        Not supported.
    compatibility
        µ as (L, L), as its diagonal (L,), or None for the identity (Potts).
    self_weight
        (N,): how much of its own marginals every pixel's message leaves out, or None.
    keep_all
        Return every update's marginals, not the last ones alone.

    Returns
    -------
    Tensor
        (T+1, N, L) marginals, the first softmax(scores), or (1, N, L); differentiable in the
        scores, the weights and factors of every kernel, µ and the self weight.

    Raises
    ------
    NotImplementedError
        For grids, for a full µ of more than ``MOST_MIXED`` labels, and where all lattices
        together have too many entries to number in 32 bits.
    """
    if grids or not kernels:
        raise NotImplementedError("mean fields with other kernels than lattices")
    lattices = [owned(kernel.lattice) for kernel in kernels]
    _check_limits(lattices, compatibility)
    folded = [kernel.folded() for kernel in kernels]
    splat_weight = torch.cat([before.T for before, _ in folded])
    slice_weight = torch.cat([after.T for _, after in folded])
    inputs = (scores, splat_weight, slice_weight, compatibility, self_weight)
    learning = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in inputs)
    if scores.is_cuda and not learning:
        from napari_deepcrf.lattice.triton_graph import replay

        with on_device_of(scores):
            padded = replay(lattices, potentials(*inputs), iterations, keep_all=keep_all)
        return padded[:, :, : scores.shape[1]]
    trace: Tensor = _MeanField.apply(  # type: ignore[no-untyped-call]
        *inputs, join(lattices), iterations, keep_all, learning
    )
    return trace if keep_all else trace[-1:]


def _check_limits(lattices: Sequence[TritonLattice], compatibility: Tensor | None) -> None:
    if compatibility is not None and compatibility.ndim == 2 and len(compatibility) > MOST_MIXED:
        raise NotImplementedError(f"a full compatibility of more than {MOST_MIXED} labels")
    if sum(lattice.entry.numel() for lattice in lattices) >= ENTRY_LIMIT:
        raise NotImplementedError(f"{ENTRY_LIMIT} or more entries of all kernels together")


def potentials(
    scores: Tensor,
    splat_weight: Tensor,
    slice_weight: Tensor,
    compatibility: Tensor | None,
    self_weight: Tensor | None,
) -> Potentials:
    """Pad the labels and lay every array out as the kernels read it."""
    extra = pad_labels(scores.shape[1]) - scores.shape[1]
    pad = torch.nn.functional.pad
    if compatibility is not None:
        compatibility = pad(compatibility, (0, extra) * compatibility.ndim).contiguous()
    return Potentials(
        scores=pad(scores, (0, extra), value=-torch.inf).contiguous(),
        splat_weight=splat_weight.contiguous(),
        slice_weight=slice_weight.contiguous(),
        compatibility=compatibility,
        self_weight=None if self_weight is None else self_weight.contiguous(),
    )


class _MeanField(Function):
    @staticmethod
    def forward(
        ctx: Any,
        scores: Tensor,
        splat_weight: Tensor,
        slice_weight: Tensor,
        compatibility: Tensor | None,
        self_weight: Tensor | None,
        joined: JoinedLattices,
        iterations: int,
        keep_all: bool,
        learning: bool,
    ) -> Tensor:
        numbers = potentials(scores, splat_weight, slice_weight, compatibility, self_weight)
        with on_device_of(scores):
            trace, blurred = run_forward(
                joined,
                numbers,
                iterations,
                keep_marginals=keep_all or learning,
                keep_blurred=learning,
            )
        if learning:
            ctx.save_for_backward(trace, blurred)
            ctx.joined, ctx.numbers, ctx.labels = joined, numbers, scores.shape[1]
        return trace[:, :, : scores.shape[1]].clone()

    @staticmethod
    @first_order
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        trace, blurred = ctx.saved_tensors
        upstream = torch.nn.functional.pad(upstream, (0, trace.shape[2] - ctx.labels))
        gradients = Gradients(ctx.numbers, needs_compatibility=ctx.needs_input_grad[3])
        with on_device_of(trace):
            gradients.run(ctx.joined, trace, blurred, upstream.contiguous())
        labels = slice(ctx.labels)
        table = gradients.compatibility
        return (
            gradients.scores[:, labels],
            gradients.splat_weight,
            gradients.slice_weight,
            table if table is None else table[(labels,) * table.ndim],
            gradients.self_weight,
            None,
            None,
            None,
            None,
        )
