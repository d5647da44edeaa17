"""Telling models apart by what their labels depend on."""

from __future__ import annotations

import hashlib
import json

import numpy as np

from napari_deepcrf.models.deepcrf import DeepCRF


def model_digest(model: DeepCRF) -> str:
    """SHA-256 of a model's weights and configuration: all that its labels depend on."""
    total = hashlib.sha256(json.dumps(model.configuration(), sort_keys=True).encode())
    for name, value in sorted(model.network.state_dict().items()):
        array = value.detach().cpu().contiguous()
        total.update(f"{name} {array.dtype} {tuple(array.shape)}".encode())
        total.update(np.ascontiguousarray(array.numpy()).data)
    return total.hexdigest()
