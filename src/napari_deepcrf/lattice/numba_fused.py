"""The fused mean field as one differentiable function of tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from napari_deepcrf.lattice.grid import GridGaussian
from napari_deepcrf.lattice.lattice import Lattice
from napari_deepcrf.lattice.numba_layout import Layout
from napari_deepcrf.lattice.numba_mean_field import FusedMeanField


def mean_field(
    scores: Tensor,
    kernels: Sequence[tuple[Lattice, Tensor, Tensor]],
    iterations: int,
    *,
    grids: Sequence[tuple[GridGaussian, Tensor, Tensor]] = (),
    compatibility: Tensor | None = None,
    self_weight: Tensor | None = None,
    keep_all: bool = True,
    on_update: Callable[[int], None] | None = None,
) -> Tensor:
    """Run q ← softmax(scores + Σ_m Slice_m Blur_m Splat_m q µ) from softmax(scores) on.

    Parameters
    ----------
    scores
        (N, L) float32; fastest as the transpose of a contiguous (L, N).
    kernels
        For each kernel its lattice and the weights (N, d+1) of its splat and its slice: the
        lattice's weights times the factors before and after filtering, alpha included.
    compatibility
        µ (L, L), its diagonal (L,), or None for Potts.
    keep_all
        Return the marginals of all updates, else only the last.
    on_update
        Called with 0, 1, ... after each update; an exception it raises ends the run.

    Returns
    -------
    Tensor
        (T+1, N, L), or (1, N, L) if not keep_all, as a view of contiguous (., L, N).
        Differentiable in scores, weights and compatibility.

    Raises
    ------
    NotImplementedError
        For grids or a self weight.
    """
    if grids or self_weight is not None or not kernels:
        raise NotImplementedError("the fused mean field takes lattices with the self term only")
    if compatibility is not None and compatibility.ndim == 1:
        compatibility = compatibility.diag()
    lattices, splat_weights, slice_weights = zip(*kernels, strict=True)
    result: Tensor = _FusedMeanField.apply(  # type: ignore[no-untyped-call]
        scores.T,
        torch.cat(slice_weights, 1),
        torch.cat(splat_weights, 1),
        compatibility,
        Layout.of(lattices),
        iterations,
        keep_all,
        on_update,
    )
    return result.transpose(1, 2)


class _FusedMeanField(Function):
    @staticmethod
    def forward(
        ctx: Any,
        scores: Tensor,
        slice_weight: Tensor,
        splat_weight: Tensor,
        compatibility: Tensor | None,
        layout: Layout,
        iterations: int,
        keep_all: bool,
        on_update: Callable[[int], None] | None,
    ) -> Tensor:
        field = FusedMeanField(
            layout,
            scores.contiguous().numpy(),
            slice_weight.numpy(),
            splat_weight.numpy(),
            None if compatibility is None else compatibility.contiguous().numpy(),
            keep_messages=any(ctx.needs_input_grad),
        )
        kept = np.empty((iterations + 1 if keep_all else 1, *scores.shape), np.float32)
        skipped = iterations + 1 - len(kept)
        for update in field.updates([*[None] * skipped, *kept]):
            if on_update is not None:
                on_update(update)
        if field.keep_messages:
            ctx.save_for_backward(slice_weight, splat_weight, compatibility)
            ctx.field, ctx.skipped = field, skipped
        return torch.from_numpy(kept)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        _ = ctx.saved_tensors  # raises if a weight was overwritten since
        upstream = [None] * ctx.skipped + list(gradient.contiguous().numpy())
        gradients = ctx.field.backward(upstream)
        labels = gradient.shape[1]
        compatibility = None
        if ctx.needs_input_grad[3]:
            compatibility = torch.from_numpy(gradients.compatibility[:labels, :labels].copy())
        scores, slice_weight, splat_weight = map(torch.from_numpy, gradients[:3])
        return scores, slice_weight, splat_weight, compatibility, None, None, None, None
