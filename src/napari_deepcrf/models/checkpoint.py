"""Checkpoints: safetensors with the model's configuration as JSON in the metadata.

Reading never unpickles and never runs code from the file.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialize
from torch import Tensor

from napari_deepcrf.atomic import atomic_write

FORMAT = "napari-deepcrf"
FORMAT_VERSION = 1

# First bytes of what torch.save and pickle.dump write: a zip archive, or a pickle protocol 2–5.
_PICKLE_STARTS = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")

_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def write_checkpoint(path: Path | str, tensors: dict[str, Tensor], config: dict[str, Any]) -> None:
    """Write tensors and their model's configuration; the file appears whole or not at all.

    Raises
    ------
    OSError
        If it cannot be written.
    """
    metadata = {
        "format": FORMAT,
        "version": str(FORMAT_VERSION),
        "config": json.dumps(config, sort_keys=True),
    }
    content = serialize({k: v.detach().contiguous() for k, v in tensors.items()}, metadata)
    with atomic_write(Path(path)) as file:
        file.write(content)


def read_checkpoint(path: Path | str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and configuration of a checkpoint.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is a pickle, truncated, or not a checkpoint of this package.
    """
    path = Path(path)
    with path.open("rb") as file:
        start = file.read(4)
    if start.startswith(_PICKLE_STARTS):
        raise ValueError(
            f"{path}: expected a .safetensors checkpoint, got a pickle, which is never read "
            "because it can run code"
        )
    try:
        with safe_open(path, framework="pt") as stored:
            metadata = stored.metadata() or {}
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{path}: not a whole .safetensors file ({error})") from error
    if metadata.get("format") != FORMAT:
        raise ValueError(f"{path}: expected a {FORMAT} checkpoint, got another safetensors file")
    if metadata.get("version") != str(FORMAT_VERSION):
        raise ValueError(
            f"{path}: expected checkpoint version {FORMAT_VERSION}, got {metadata.get('version')}"
        )
    try:
        config = json.loads(metadata["config"])
    # Beside JSONDecodeError: numbers of too many digits, and brackets nested too deeply.
    except (KeyError, ValueError, RecursionError) as error:
        raise ValueError(f"{path}: the checkpoint's configuration is damaged ({error})") from error
    if not isinstance(config, dict):
        raise ValueError(f"{path}: the checkpoint's configuration is damaged (no JSON object)")
    return tensors, config


def check_tensors(path: Path | str, module: torch.nn.Module, tensors: dict[str, Tensor]) -> None:
    """Refuse tensors whose names, shapes and kinds are not those of the module's state.

    Floats may be of half or double precision; the module may lie on torch's meta device.

    Raises
    ------
    ValueError
        For the first name, shape or type that differs, and for weights that are not finite.
    """
    expected = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in tensors.items()}
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            raise ValueError(
                f"{path}: another architecture: {name} expected {expected.get(name, 'absent')}, "
                f"got {found.get(name, 'absent')}"
            )
    for name, own in module.state_dict().items():
        if tensors[name].dtype not in (_FLOATS if own.is_floating_point() else (own.dtype,)):
            raise ValueError(f"{path}: {name}: expected {own.dtype}, got {tensors[name].dtype}")
    for name, value in tensors.items():
        if not bool(torch.isfinite(value).all()):
            raise ValueError(f"{path}: {name}: expected finite weights, got NaN or infinity")
