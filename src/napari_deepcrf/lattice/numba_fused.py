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
from napari_deepcrf.lattice.numba_dense import DenseTerm
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
    """Run q ← softmax(scores + (Σ_m Slice_m Blur_m Splat_m q + Σ_g Grid_g q − self q) µ).

    Parameters
    ----------
    scores
        (N, L) float32; fastest as the transpose of a contiguous (L, N).
    kernels
        For each kernel its lattice and the weights (N, d+1) of its splat and its slice: the
        lattice's weights times the factors before and after filtering, alpha included.
    grids
        For each grid kernel g its Gaussian and factors (N,) before and after it.
    compatibility
        µ (L, L), its diagonal (L,), or None for Potts.
    self_weight
        (N,) what of its own marginals every pixel leaves out, or None.
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
        For more than one grid, a grid that is not 2-D, or gradients through grids or a self
        weight; and without any lattice.
    """
    dense = _dense_term(grids, self_weight)
    if not kernels:
        raise NotImplementedError("the fused mean field needs a lattice")
    if compatibility is not None and compatibility.ndim == 1:
        compatibility = compatibility.diag()
    lattices, splat_weights, slice_weights = zip(*kernels, strict=True)
    result: Tensor = _FusedMeanField.apply(  # type: ignore[no-untyped-call]
        scores.T,
        torch.cat(slice_weights, 1),
        torch.cat(splat_weights, 1),
        compatibility,
        Layout.of(lattices),
        dense,
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
        dense: DenseTerm | None,
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
            dense=dense,
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
        return scores, slice_weight, splat_weight, compatibility, None, None, None, None, None


def _dense_term(
    grids: Sequence[tuple[GridGaussian, Tensor, Tensor]], self_weight: Tensor | None
) -> DenseTerm | None:
    """The grid and the self weight as one term, or None where there is neither."""
    if not grids and self_weight is None:
        return None
    if len(grids) > 1 or any(len(gaussian.shape) != 2 for gaussian, _, _ in grids):
        raise NotImplementedError("the fused mean field takes one grid of two axes")
    zero = torch.zeros_like(grids[0][1] if self_weight is None else self_weight)
    pre, post, height = zero + 1, zero, 1
    taps: Sequence[Tensor] = (zero.new_zeros(1),) * 2
    if grids:
        gaussian, pre, post = grids[0]
        taps, height = gaussian.taps, gaussian.shape[0]
    own = zero if self_weight is None else self_weight
    if torch.is_grad_enabled() and any(x.requires_grad for x in (pre, post, own, *taps)):
        raise NotImplementedError("the fused mean field has no gradients of grids and self terms")
    columns, lines = (_significant(t.detach()).numpy() for t in taps)
    before, after, own_share = (x.detach().numpy() for x in (pre, post, own))
    return DenseTerm((columns, lines), before, after, own_share, height)


def _significant(taps: Tensor) -> Tensor:
    """Leave out the ends of symmetric taps that vanish beside the centre in float32."""
    centre = taps.shape[0] // 2
    kept = int((taps[centre:] > 2.0**-24 * taps[centre]).sum()) - 1
    return taps[centre - kept : centre + kept + 1].contiguous()
