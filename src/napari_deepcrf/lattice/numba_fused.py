"""The fused mean field as one differentiable function of tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor
from torch.autograd import Function

from napari_deepcrf.lattice.first_order import first_order
from napari_deepcrf.lattice.grid import GridGaussian
from napari_deepcrf.lattice.numba_grid import GridTerm
from napari_deepcrf.lattice.numba_lattice import NumbaLattice
from napari_deepcrf.lattice.numba_mean_field import FusedMeanField, LatticeTerm
from napari_deepcrf.lattice.scaled import ScaledLattice


def mean_field(
    scores: Tensor,
    kernels: Sequence[ScaledLattice],
    iterations: int,
    *,
    grids: Sequence[tuple[GridGaussian, Tensor, Tensor]] = (),
    compatibility: Tensor | None = None,
    self_weight: Tensor | None = None,
    keep_all: bool = True,
) -> Tensor:
    """Run the updates q ← softmax(scores + (Σ_m K_m q + Σ_g G_g q − self q) µ) [paper, eq. 5].

    Parameters
    ----------
    scores
        (N, L) float32; fastest as the transpose of a contiguous (L, N).
    kernels
        K_m, at least one, on lattices that Numba has built.
    iterations
        Updates T.
    grids
        G_g, as a Gaussian and the factors (N,) before and after it.
    compatibility
        µ (L, L), its diagonal (L,), or None for Potts.
    self_weight
        (N,) what of its own marginals every pixel leaves out, or None.
    keep_all
        Return the marginals of all updates, else only the last.

    Returns
    -------
    Tensor
        (T+1, N, L), a view of contiguous (T+1, L, N); or (1, N, L) if not keep_all, a view of
        contiguous (N, P) with P >= L. Differentiable in every tensor given, the grid's taps
        included.

    Raises
    ------
    NotImplementedError
        For more than one grid, or one that is not 2-D; and without any lattice.
    """
    grid = _grid_tensors(grids, self_weight)
    if not kernels:
        raise NotImplementedError("the fused mean field needs a lattice")
    if compatibility is not None and compatibility.ndim == 1:
        compatibility = compatibility.diag()
    run = _Run(
        lattices=tuple(cast("NumbaLattice", kernel.lattice) for kernel in kernels),
        grid=grid.place if grid else None,
        iterations=iterations,
        keep_all=keep_all,
    )
    tensors = [tensor for kernel in kernels for tensor in kernel[1:]]
    if grid is not None:
        tensors += grid.tensors
    result: Tensor = _FusedMeanField.apply(  # type: ignore[no-untyped-call]
        run, scores.T, compatibility, *tensors
    )
    return result.transpose(1, 2)


@dataclass(frozen=True)
class _Run:
    """What of a mean field has no gradients."""

    lattices: tuple[NumbaLattice, ...]
    grid: tuple[int, int] | None
    """With a grid term: the height and the number of images."""
    iterations: int
    keep_all: bool


class _FusedMeanField(Function):
    """Scores (L, N), µ, each kernel's weight, before and after, the grid term's tensors
    -> marginals (., L, N).
    """

    @staticmethod
    def forward(
        ctx: Any, run: _Run, scores: Tensor, compatibility: Tensor | None, *tensors: Tensor
    ) -> Tensor:
        arrays = [tensor.contiguous().numpy() for tensor in tensors]
        grid = None
        if run.grid is not None:
            columns, lines, pre, post, own = arrays[3 * len(run.lattices) :]
            grid = GridTerm((columns, lines), pre, post, own, *run.grid)
        field = FusedMeanField(
            scores.contiguous().numpy(),
            [LatticeTerm(m, *arrays[3 * n : 3 * n + 3]) for n, m in enumerate(run.lattices)],
            None if compatibility is None else compatibility.contiguous().numpy(),
            grid=grid,
            keep_messages=any(ctx.needs_input_grad),
        )
        trace = final = None
        if run.keep_all:
            trace = np.empty((run.iterations + 1, *scores.shape), np.float32)
        else:
            final = np.empty_like(field.logits) if field.keep_messages else field.logits
        field.run(run.iterations, trace=trace, final=final)
        if field.keep_messages:
            ctx.save_for_backward(compatibility, *tensors)
            ctx.field = field
        if final is None:
            return torch.from_numpy(trace)
        return torch.from_numpy(final).T[None, : scores.shape[0]]

    @staticmethod
    @first_order
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        _ = ctx.saved_tensors  # raises if a weight was overwritten since
        upstream = list(gradient.contiguous().numpy())
        upstream = [None] * (len(ctx.field.messages) + 1 - len(upstream)) + upstream
        gradients = ctx.field.backward(upstream)
        labels = gradient.shape[1]
        mixing, grid = gradients.compatibility, gradients.grid
        arrays = [array for part in gradients.lattices for array in part]
        if grid is not None:
            mixing = mixing + grid.mixing.sum(0)
            taps = [by_band.sum(0).astype(np.float32) for by_band in grid.taps]
            arrays += [*taps, grid.pre, grid.post, grid.self_weight]
        compatibility = None
        if ctx.needs_input_grad[2]:
            compatibility = torch.from_numpy(mixing[:labels, :labels].copy())
        tensors = [torch.from_numpy(array) for array in arrays]
        return None, torch.from_numpy(gradients.scores), compatibility, *tensors


class _GridTensors(NamedTuple):
    """The grid and the self weight as the tensors of one ``GridTerm``."""

    tensors: tuple[Tensor, ...]
    """Taps along columns and lines, (N,) before, after and self weight."""
    place: tuple[int, int]
    """The height and the number of images."""


def _grid_tensors(
    grids: Sequence[tuple[GridGaussian, Tensor, Tensor]], self_weight: Tensor | None
) -> _GridTensors | None:
    if not grids and self_weight is None:
        return None
    if len(grids) > 1 or any(len(gaussian.shape) != 2 for gaussian, _, _ in grids):
        raise NotImplementedError("the fused mean field takes one grid of two axes")
    if not grids:
        assert self_weight is not None
        zero = torch.zeros_like(self_weight)
        no_taps = zero.new_zeros(1)
        return _GridTensors((no_taps, no_taps, zero + 1, zero, self_weight), (1, 1))
    gaussian, pre, post = grids[0]
    own = torch.zeros_like(pre) if self_weight is None else self_weight
    columns, lines = map(_significant, gaussian.taps)
    return _GridTensors((columns, lines, pre, post, own), (gaussian.shape[0], gaussian.images))


def _significant(taps: Tensor) -> Tensor:
    """Leave out the ends of symmetric taps that vanish beside the centre in float32."""
    centre = taps.shape[0] // 2
    kept = int((taps[centre:] > 2.0**-24 * taps[centre]).sum()) - 1
    return taps[centre - kept : centre + kept + 1].contiguous()
