"""One mean-field update on the GPU, forward and backward, fused around the slice.

A tile holds ROWS points by COLUMNS labels, so that the softmax and its derivative run in
registers and marginals pass through memory once an update. Rows of labels are padded with labels
of score -inf, whose marginals and gradients are zero.
"""

# mypy: allow-untyped-defs, allow-untyped-decorators, allow-incomplete-defs
# Triton gives kernels their types when they are launched.

from __future__ import annotations

import triton
import triton.language as tl

from napari_deepcrf.lattice.triton_kernels import UNSPECIALISED, interpolate, rows_at


@triton.jit
def table_of(compatibility, column, inside, CHANNELS: tl.constexpr):
    """The square compatibility matrix as a (COLUMNS, COLUMNS) tile."""
    at = column[:, None] * CHANNELS + column[None, :]
    return tl.load(compatibility + at, mask=inside[:, None] & inside[None, :], other=0.0)


@triton.jit(do_not_specialize=UNSPECIALISED)
def update_kernel(
    scores, z, vertex, slice_weight, previous, self_weight, compatibility, marginals,
    num_points, num_vertices,
    CORNERS: tl.constexpr, COMPATIBILITY: tl.constexpr, CHANNELS: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """q_i = softmax(scores_i + (Σ_k a_ik z[v_ik] - self_i previous_i) µ), see ``mean_field``."""
    point = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)).to(tl.int64)
    column = tl.arange(0, COLUMNS)
    valid = point < num_points
    inside = column < CHANNELS
    here = point[:, None] * CHANNELS + column[None, :]
    within = valid[:, None] & inside[None, :]
    total = interpolate(
        z, vertex, slice_weight, point, valid, column, inside, num_vertices, 1, num_points,
        CORNERS, CHANNELS, ROWS, COLUMNS,
    )  # fmt: skip
    if self_weight is not None and CORNERS > 0:
        own = tl.load(self_weight + point, mask=valid, other=0.0)
        total -= own[:, None] * rows_at(previous, point, valid, column, inside, CHANNELS)
    if COMPATIBILITY == "diagonal":
        total *= tl.load(compatibility + column, mask=inside, other=0.0)[None, :]
    if COMPATIBILITY == "full":
        total = tl.dot(
            total, table_of(compatibility, column, inside, CHANNELS), input_precision="ieee"
        )
    # Rows past the last point are all zero rather than all -inf, which keeps NaN out of them.
    logits = total + tl.load(scores + here, mask=within, other=0.0)
    logits = tl.where(inside[None, :], logits, float("-inf"))
    share = tl.exp(logits - tl.max(logits, 1)[:, None])
    tl.store(marginals + here, share / tl.sum(share, 1)[:, None], mask=within)


@triton.jit(do_not_specialize=UNSPECIALISED)
def backward_kernel(
    marginals, upstream, grad_message, z, z_reverse, vertex, splat_weight, self_weight,
    compatibility, grad_scores, grad_logits, grad_splat, grad_slice, grad_self,
    num_points, num_vertices,
    CORNERS: tl.constexpr, COMPATIBILITY: tl.constexpr, CHANNELS: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Carry gradients from update t+1, if CORNERS > 0, through the softmax of update t.

    On entry ``grad_message`` is the gradient of update t+1's message, z its forward-blurred
    splat of the marginals of t and z_reverse the reverse-blurred splat of grad_message; on
    exit grad_message belongs to update t. Gradients of inputs are added to, each by one program.
    """
    point = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)).to(tl.int64)
    column = tl.arange(0, COLUMNS)
    valid = point < num_points
    inside = column < CHANNELS
    here = point[:, None] * CHANNELS + column[None, :]
    within = valid[:, None] & inside[None, :]
    q = rows_at(marginals, point, valid, column, inside, CHANNELS)
    grad = rows_at(upstream, point, valid, column, inside, CHANNELS)
    if CORNERS > 0:
        message = rows_at(grad_message, point, valid, column, inside, CHANNELS)
        for k in tl.static_range(CORNERS):
            at = point + k * num_points
            v = tl.load(vertex + at, mask=valid, other=0)
            tl.device_assert((v >= 0) & (v < num_vertices), "backward: vertex out of range")
            back = rows_at(z_reverse, v, valid, column, inside, CHANNELS)
            grad += tl.load(splat_weight + at, mask=valid, other=0.0)[:, None] * back
            by_splat = tl.load(grad_splat + at, mask=valid, other=0.0) + tl.sum(q * back, 1)
            tl.store(grad_splat + at, by_splat, mask=valid)
            forth = rows_at(z, v, valid, column, inside, CHANNELS)
            by_slice = tl.load(grad_slice + at, mask=valid, other=0.0) + tl.sum(message * forth, 1)
            tl.store(grad_slice + at, by_slice, mask=valid)
        if self_weight is not None:
            grad -= tl.load(self_weight + point, mask=valid, other=0.0)[:, None] * message
            by_self = tl.load(grad_self + point, mask=valid, other=0.0) - tl.sum(q * message, 1)
            tl.store(grad_self + point, by_self, mask=valid)
    logits = q * (grad - tl.sum(q * grad, 1)[:, None])
    so_far = rows_at(grad_scores, point, valid, column, inside, CHANNELS)
    tl.store(grad_scores + here, so_far + logits, mask=within)
    if COMPATIBILITY == "diagonal":
        tl.store(grad_logits + here, logits, mask=within)
        logits *= tl.load(compatibility + column, mask=inside, other=0.0)[None, :]
    if COMPATIBILITY == "full":
        tl.store(grad_logits + here, logits, mask=within)
        table = table_of(compatibility, column, inside, CHANNELS)
        logits = tl.dot(logits, tl.trans(table), input_precision="ieee")
    tl.store(grad_message + here, logits, mask=within)
