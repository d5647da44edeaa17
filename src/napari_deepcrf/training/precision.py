"""Mixed precision: what the network computes in, and the scaling that float16 gradients need."""

from __future__ import annotations

import torch

from napari_deepcrf.device import half_precision
from napari_deepcrf.training.config import Precision

_DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}


def network_dtype(precision: Precision, device: torch.device) -> torch.dtype:
    """The type that a stage's network computes in on a device."""
    if precision == "auto":
        return half_precision(device) or torch.float32
    return _DTYPES.get(precision, torch.float32)


def autocast(dtype: torch.dtype, device: torch.device) -> torch.autocast:
    """The context in which the network computes in ``dtype``; without effect for float32."""
    if dtype is torch.float32:
        return torch.autocast(device.type, enabled=False)
    return torch.autocast(device.type, dtype)


def gradient_scaler(dtype: torch.dtype, device: torch.device) -> torch.amp.GradScaler:
    """Scales losses so that float16 gradients do not vanish; without effect for other types."""
    return torch.amp.GradScaler(device.type, enabled=dtype is torch.float16)
