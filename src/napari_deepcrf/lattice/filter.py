"""Differentiable filtering on a lattice.

With K = α Sᵀ B S the backward pass for an upstream gradient g is the same filter with the blur
order reversed, Kᵀg, because S is the same on both sides and every one-axis blur is symmetric
while their product is not. The barycentric weights b enter through both S, which gives

    ∂/∂b_ik = α (g_i · V_v(i,k) + x_i · V'_v(i,k)),

V the forward-blurred splat of x and V' the reverse-blurred splat of g (Krähenbühl & Koltun,
"Parameter Learning and Convergent Inference for Dense Random Fields", 2013, section 4). From
there the weights depend linearly on the features as long as no point changes its simplex.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd import Function

from napari_deepcrf.lattice.embedding import elevate_transposed, weights_transposed
from napari_deepcrf.lattice.first_order import first_order
from napari_deepcrf.lattice.lattice import Lattice, feature_scale


def permutohedral_filter(
    values: Tensor,
    features: Tensor,
    *,
    ring: bool = False,
    passes: int = 1,
    backend: str = "auto",
) -> Tensor:
    """Filter values with a Gaussian of unit width in feature space, y_i ≈ Σ_j k(f_i, f_j) x_j.

    Parameters
    ----------
    values
        (N, C) float32 or float64, C at least 1.
    features
        (N, d) of the same precision and device, already divided by the kernel widths.
    ring, passes, backend
        See ``Lattice.build``.

    Returns
    -------
    Tensor
        (N, C), differentiable once in values and features; the features' gradient is exact for
        the filter that ran (not for the Gaussian it stands for).

    Raises
    ------
    ValueError
        For mismatched or empty shapes, features that are not finite, or widths so small that
        lattice keys leave their range.
    TypeError
        For anything but two tensors of one floating-point type on one device.
    """
    for name, given in (("values", values), ("features", features)):
        if not isinstance(given, Tensor):
            raise TypeError(f"{name}: expected a torch.Tensor, got {type(given).__name__}")
        if given.dtype not in (torch.float32, torch.float64):
            raise TypeError(f"{name}: expected float32 or float64, got {given.dtype}")
        if given.ndim != 2 or 0 in given.shape:
            columns = "C" if name == "values" else "d"
            raise ValueError(f"{name}: expected shape (N, {columns}), got {tuple(given.shape)}")
    if values.shape[0] != features.shape[0]:
        raise ValueError(
            f"values: expected shape ({features.shape[0]}, C), got {tuple(values.shape)}"
        )
    if values.dtype != features.dtype or values.device != features.device:
        raise TypeError(
            f"values: expected {features.dtype} on {features.device} like features, "
            f"got {values.dtype} on {values.device}"
        )
    lattice = Lattice.build(features, ring=ring, passes=passes, backend=backend)
    return filter_on(lattice, values, barycentric_weights(features, lattice))


def filter_on(lattice: Lattice, values: Tensor, weight: Tensor | None = None) -> Tensor:
    """Filter values (N, C) on a built lattice, (N, C) as ``permutohedral_filter`` does.

    ``weight`` (N, d+1) is the result of ``barycentric_weights`` where gradients shall reach the
    features.

    Raises
    ------
    ValueError
        If there are not as many values as the lattice has points.
    """
    if values.shape[0] != lattice.num_points:
        expected = f"({lattice.num_points}, C)"
        raise ValueError(f"values: expected shape {expected}, got {tuple(values.shape)}")
    weight = lattice.weight if weight is None else weight
    return cast("Tensor", _Filter.apply(values, weight, lattice))  # type: ignore[no-untyped-call]


def barycentric_weights(features: Tensor, lattice: Lattice) -> Tensor:
    """The lattice's weights (N, d+1) as a differentiable function of its features (N, d)."""
    return cast("Tensor", _Barycentric.apply(features, lattice))  # type: ignore[no-untyped-call]


class _Barycentric(Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, lattice: Lattice) -> Tensor:
        ctx.lattice = lattice
        return lattice.weight.view_as(lattice.weight)

    @staticmethod
    @first_order
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        lattice: Lattice = ctx.lattice
        elevated = weights_transposed(gradient, lattice.rank)
        return elevate_transposed(elevated) * feature_scale(lattice.passes), None


class _Filter(Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, weight: Tensor, lattice: Lattice) -> Tensor:
        kernels = lattice.kernels
        values = values.contiguous()
        blurred = kernels.blur(lattice, kernels.splat(lattice, values), reverse=False)
        ctx.lattice = lattice
        if weight.requires_grad:
            ctx.save_for_backward(values, blurred)
        return kernels.slice(lattice, blurred).mul_(lattice.alpha)

    @staticmethod
    @first_order
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        lattice: Lattice = ctx.lattice
        kernels = lattice.kernels
        gradient = gradient.contiguous()
        blurred = kernels.blur(lattice, kernels.splat(lattice, gradient), reverse=True)
        grad_values = grad_weight = None
        if ctx.needs_input_grad[0]:
            grad_values = kernels.slice(lattice, blurred).mul_(lattice.alpha)
        if ctx.needs_input_grad[1]:
            values, forward_blurred = ctx.saved_tensors
            grad_weight = kernels.gather_dot(lattice, gradient, forward_blurred)
            grad_weight = grad_weight.add_(kernels.gather_dot(lattice, values, blurred))
            grad_weight = grad_weight.mul_(lattice.alpha)
        return grad_values, grad_weight, None
