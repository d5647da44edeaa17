"""The full state of a run as one safetensors file: written atomically, read without pickle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialize
from torch import Tensor

from napari_deepcrf.atomic import atomic_write
from napari_deepcrf.messages import first_line

_GROUPS = "param_groups"


def write_state(path: Path, tensors: dict[str, Tensor], values: dict[str, Any]) -> None:
    """Write tensors and JSON-able values; the file appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    contiguous = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    with atomic_write(path) as file:
        file.write(serialize(contiguous, {"state": json.dumps(values)}))


def read_state(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `write_state` wrote; ValueError where the file is damaged or another kind."""
    try:
        with safe_open(path, framework="pt") as file:
            values = json.loads((file.metadata() or {})["state"])
            # Copies: what safetensors gives is the file, mapped, which Windows lets nobody replace.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    # Beside JSONDecodeError: numbers of too many digits, and brackets nested too deeply.
    except (SafetensorError, KeyError, ValueError, RecursionError) as error:
        reason = first_line(error)
        raise ValueError(f"{path}: expected the state of a training run ({reason})") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path}: expected the state of a training run (no JSON object)")
    return tensors, values


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """An optimiser's moments as ``index.name`` → tensor."""
    state = optimizer.state_dict()["state"]
    return {
        f"{index}.{name}": torch.as_tensor(value)
        for index, moments in state.items()
        for name, value in moments.items()
        if value is not None
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Put back what `optimizer_tensors` took out; the groups stay the optimiser's own."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = value
    groups = optimizer.state_dict()[_GROUPS]
    optimizer.load_state_dict({"state": state, _GROUPS: groups})


def with_prefix(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors under ``prefix.name``."""
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def under_prefix(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Those tensors whose names start with ``prefix.``, without it."""
    start = f"{prefix}."
    return {
        name.removeprefix(start): tensor
        for name, tensor in tensors.items()
        if name.startswith(start)
    }
