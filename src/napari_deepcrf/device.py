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
            free, total = (size / 2**30 for size in torch.cuda.mem_get_info(index))
            product = torch.cuda.get_device_name(index)
            text = f"{product}, {free:.1f} of {total:.1f} GiB free"
            found.append(DeviceInfo(f"cuda:{index}", text))
    if torch.backends.mps.is_available():
        found.append(DeviceInfo("mps", "Apple GPU"))
    found.append(DeviceInfo("cpu", f"CPU, {torch.get_num_threads()} threads"))
    return tuple(found)


def with_fallback(device: torch.device, work: Callable[[torch.device], _Result]) -> _Result:
    """Do the work on a device; if memory runs out there, say so in the log and use the CPU."""
    try:
        return work(device)
    except torch.OutOfMemoryError:
        if device.type == "cpu":
            raise
    # Outside of the handler, whose traceback would keep the tensors of the failed run alive.
    release_memory(device, everything=True)
    _logger.warning("%s ran out of memory; this image is done on the CPU", device)
    return work(torch.device("cpu"))


def release_memory(device: torch.device, *, everything: bool = False) -> None:
    """Give a GPU's unused memory back to other programs after a job.

    ``everything`` also gives up what is kept for the next job, the CUDA graphs of mean fields.
    """
    if device.type != "cuda":
        return
    if everything:
        graphs = sys.modules.get("napari_deepcrf.lattice.triton_graph")
        if graphs is not None:
            graphs.release_graphs()
        gc.collect()
    torch.cuda.empty_cache()


def network_precision(device: torch.device) -> torch.autocast:
    """The context in which networks run: half precision on CUDA GPUs, float32 elsewhere.

    bfloat16 where the GPU computes with it, for it has the range of float32; else float16.
    """
    if device.type != "cuda":
        return torch.autocast(device.type, enabled=False)
    ampere = torch.cuda.get_device_capability(device) >= (8, 0)
    return torch.autocast("cuda", torch.bfloat16 if ampere else torch.float16)
