"""A dense CRF as plain values, for checkpoints: its options and every number it learnt."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import torch

from napari_deepcrf.crf import CRFParameters, DenseCRF
from napari_deepcrf.crf.parameters import KernelParameters

MOST_ITERATIONS = 1000
"""Of a stored CRF; mean field stands still after some tens."""


def crf_configuration(crf: DenseCRF) -> dict[str, Any]:
    """JSON-able values from which `build_crf` makes the same CRF, on whatever device."""
    options = asdict(crf.options)
    del options["backend"]  # a matter of the machine, not of the model
    values = crf.compatibility.values
    return {
        **options,
        "parameters": crf.crf_parameters().to_dict(),
        "extra_kernels": [asdict(kernel.snapshot()) for kernel in crf.kernels[2:]],
        "compatibility": None if values is None else values.detach().tolist(),
    }


def build_crf(configuration: dict[str, Any], **settings: Any) -> DenseCRF:
    """The CRF that `crf_configuration` described; ``settings`` override its options.

    Raises
    ------
    ValueError, KeyError, TypeError
        If the values make no CRF, or one that would run for more than `MOST_ITERATIONS` updates.
    """
    options = dict(configuration)
    if options["iterations"] > MOST_ITERATIONS:
        raise ValueError(
            f"iterations: expected at most {MOST_ITERATIONS}, got {options['iterations']}"
        )
    parameters = CRFParameters.from_dict(options.pop("parameters"))
    extra = [KernelParameters(**kernel) for kernel in options.pop("extra_kernels")]
    values = options.pop("compatibility")
    if values is not None:
        matrix = torch.tensor(values)
        if not bool(torch.isfinite(matrix).all()):
            raise ValueError("compatibility: expected finite numbers, got NaN or infinity")
        options |= {
            "compatibility": "full" if matrix.ndim == 2 else "diagonal",
            "num_classes": len(matrix),
        }
    crf = DenseCRF(parameters, extra_kernels=extra, **{**options, **settings})
    if crf.compatibility.values is not None:
        with torch.no_grad():
            crf.compatibility.values.copy_(matrix)
    return crf
