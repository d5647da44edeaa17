"""Where networks and mean fields run, and what happens when there is no room for them."""

from __future__ import annotations

import gc
import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch

_logger = logging.getLogger(__name__)
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class DeviceInfo:
    """A device that people can choose."""

    name: str
    """What ``resolve_device`` takes."""
    description: str
    """Its product name and, for a GPU, its free memory."""


def resolve_device(name: str = "auto") -> torch.device:
    """Find the device called ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"`` or ``"mps"``.

    ``"auto"`` is the first CUDA GPU, or the CPU where there is none.

    Raises
    ------
    ValueError
        For other names and for devices that this machine does not have.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError) as error:
        raise ValueError(
            f"device: expected auto, cpu, cuda, cuda:N or mps, got {name!r}"
        ) from error
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            found = f"{count} CUDA GPUs are" if count != 1 else "1 CUDA GPU is"
            raise ValueError(f"device: {name} is not there, {found}; use auto or cpu")
        return torch.device("cuda", device.index or 0)
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ValueError("device: mps is not there, use auto or cpu")
    if device.type not in ("cpu", "mps"):
        raise ValueError(f"device: expected auto, cpu, cuda, cuda:N or mps, got {name!r}")
    return device


def describe_devices() -> tuple[DeviceInfo, ...]:
    """The devices of this machine, best first, for people to choose from."""
    found = []
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            text = f"{torch.cuda.get_device_name(index)}, {_free_memory(index)}"
            found.append(DeviceInfo(f"cuda:{index}", text))
    if torch.backends.mps.is_available():
        found.append(DeviceInfo("mps", "Apple GPU, CRF in plain PyTorch operations"))
    found.append(DeviceInfo("cpu", f"CPU, {torch.get_num_threads()} threads"))
    return tuple(found)


def with_fallback(
    device: torch.device,
    work: Callable[[torch.device], _Result],
    *,
    in_tiles: Callable[[torch.device], _Result] | None = None,
) -> _Result:
    """Do the work on a device; if a GPU's memory runs out, say so in the log and help out.

    ``in_tiles`` does the same work with less memory: it takes over where it is given, on the GPU
    and then on the CPU. Else the CPU does the work.
    """
    try:
        return work(device)
    except RuntimeError as error:
        if device.type == "cpu" or not _is_out_of_memory(error):
            raise
    # Outside of the handler, whose traceback would keep the tensors of the failed run alive.
    gc.collect()
    release_memory(device)
    instead = "on the CPU" if in_tiles is None else "in tiles"
    _logger.warning("%s ran out of memory; this image is done %s", device, instead)
    if in_tiles is not None:
        return with_fallback(device, in_tiles)
    return work(torch.device("cpu"))


def release_memory(device: torch.device) -> None:
    """Give a GPU's memory back to other programs after a job, CUDA graphs included.

    Not between a slider's moves, which graphs make fast.
    """
    graphs = sys.modules.get("napari_deepcrf.lattice.triton_graph")
    if device.type == "cuda" and graphs is not None:
        graphs.release_graphs()
    if device.type in ("cuda", "mps"):
        getattr(torch, device.type).empty_cache()


def half_precision(device: torch.device) -> torch.dtype | None:
    """What networks compute in on a CUDA GPU; None elsewhere, where it is float32.

    bfloat16 where the GPU has it, for it has the range of float32; else float16.
    """
    if device.type != "cuda":
        return None
    ampere = torch.cuda.get_device_capability(device) >= (8, 0)
    return torch.bfloat16 if ampere else torch.float16


def network_precision(device: torch.device) -> torch.autocast:
    """The context in which networks run: ``half_precision`` where there is one."""
    dtype = half_precision(device)
    return torch.autocast(device.type, dtype, enabled=dtype is not None)


def _free_memory(index: int) -> str:
    try:
        free, total = (size / 2**30 for size in torch.cuda.mem_get_info(index))
    except RuntimeError:  # another program has taken all, or has the GPU to itself
        return "not free"
    return f"{free:.1f} of {total:.1f} GiB free"


def _is_out_of_memory(error: RuntimeError) -> bool:
    """Whether PyTorch, Triton or one of NVIDIA's libraries found no memory."""
    text = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError) or any(
        sign in text for sign in ("out of memory", "alloc_failed", "memoryallocation")
    )
