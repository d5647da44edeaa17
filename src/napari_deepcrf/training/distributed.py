"""One training step shared by several processes, each with its part of the batch.

Without an initialised process group (``torchrun`` and `torch.distributed`) everything here is
that of a single process. The shares are summed, not averaged over unequal parts, so that N
processes follow the losses of one process with the whole batch.
"""

from __future__ import annotations

import os

import torch
import torch.distributed as dist
from torch import Tensor, nn


def join_group() -> None:
    """Join the processes that ``torchrun`` started, if it did and nobody has yet."""
    if "WORLD_SIZE" in os.environ and dist.is_available() and not dist.is_initialized():
        dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")


def rank() -> int:
    """Number of the present process, 0 for the one that validates and writes."""
    return dist.get_rank() if _active() else 0


def world_size() -> int:
    """How many processes share a batch."""
    return dist.get_world_size() if _active() else 1


def shared_mean(value: Tensor) -> Tensor:
    """Mean of a scalar over the processes, without a gradient."""
    if not _active():
        return value.detach()
    result = value.detach().clone()
    dist.all_reduce(result)
    return result / world_size()


@torch.no_grad()
def share_state(module: nn.Module) -> None:
    """Give every process the first one's weights and statistics."""
    if _active():
        for value in module.state_dict().values():
            dist.broadcast(value, src=0)


@torch.no_grad()
def share_gradients(module: nn.Module) -> None:
    """Replace every gradient by its mean over the processes, in one exchange."""
    if not _active():
        return
    gradients = [p.grad for p in module.parameters() if p.grad is not None]
    flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
    dist.all_reduce(flat)
    flat /= world_size()
    for gradient, mean in zip(
        gradients, torch.split(flat, [g.numel() for g in gradients]), strict=True
    ):
        gradient.copy_(mean.view_as(gradient))


def _active() -> bool:
    return dist.is_available() and dist.is_initialized()
