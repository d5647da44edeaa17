"""One training step shared by several processes, each with its part of the batch.

Without an initialised process group (``torchrun`` and `torch.distributed`) everything here is
that of a single process. The shares are summed, not averaged over unequal parts, so that N
processes follow the losses of one process with the whole batch.
"""

from __future__ import annotations

import gc
import os
from contextlib import AbstractContextManager, nullcontext

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from napari_deepcrf.device import resolve_device


def own_device(name: str) -> torch.device:
    """What `resolve_device` finds, but ``"auto"`` is the process's own GPU under ``torchrun``."""
    local = os.environ.get("LOCAL_RANK")
    if name == "auto" and local is not None and torch.cuda.is_available():
        name = f"cuda:{local}"
    device = resolve_device(name)
    if device.type == "cuda" and local is not None:
        torch.cuda.set_device(device)
    return device


def join_group(device: torch.device) -> None:
    """Join the processes that ``torchrun`` started, if it did and nobody has yet."""
    if "WORLD_SIZE" in os.environ and dist.is_available() and not dist.is_initialized():
        # The functions of this module keep the group that there is when it is first imported, as
        # their default argument: `DistributedDataParallel` would import it after this line.
        import torch.distributed.nn.functional  # noqa: F401

        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")


def leave_group() -> None:
    """Leave them again, if there are any: the group and its threads end here.

    A thread of a group that outlives the interpreter may be the last to hold a tensor of Python's,
    and ends the process with "terminate called without an active exception".
    """
    if _active():
        gc.collect()  # parallel modules in cycles hold the group
        dist.destroy_process_group()


def rank() -> int:
    """Number of the present process, 0 for the one that writes."""
    return dist.get_rank() if _active() else 0


def world_size() -> int:
    """How many processes share a batch."""
    return dist.get_world_size() if _active() else 1


def shared_sum(value: Tensor) -> Tensor:
    """Sum of a tensor over the processes, on its own device, without a gradient."""
    if not _active():
        return value.detach()
    place = "cuda" if dist.get_backend() == "nccl" else "cpu"
    total = value.detach().to(place, copy=True)
    dist.all_reduce(total)
    return total.to(value.device)


def shared_mean(value: Tensor) -> Tensor:
    """Mean of a scalar over the processes, without a gradient."""
    return shared_sum(value) / world_size()


def shared_names(names: tuple[str, ...]) -> tuple[str, ...]:
    """The names of all processes, in the order in which a single one would have them."""
    if not _active():
        return names
    shares: list[tuple[str, ...]] = [()] * world_size()
    dist.all_gather_object(shares, names)
    return tuple(name for row in zip(*shares, strict=True) for name in row)


def parallel(objective: nn.Module) -> nn.Module:
    """The module with its gradients averaged over the processes, who start from one state."""
    return DistributedDataParallel(objective) if _active() else objective


def gathering(objective: nn.Module, last: bool) -> AbstractContextManager[object]:
    """The context of a backward pass that adds to gradients: exchanged with the last alone."""
    if last or not isinstance(objective, DistributedDataParallel):
        return nullcontext()
    return objective.no_sync()


def _active() -> bool:
    return dist.is_available() and dist.is_initialized()
