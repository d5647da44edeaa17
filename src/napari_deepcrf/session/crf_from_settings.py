"""The CRF that settings describe, on images of any number of channels, and what a model learned."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from napari_deepcrf.crf import DenseCRF
    from napari_deepcrf.models import DeepCRF
    from napari_deepcrf.session.settings import CRFSettings

Array = npt.NDArray[Any]
Width = float | tuple[float, ...]


def fit_to_channels(settings: CRFSettings, channels: int) -> CRFSettings:
    """The settings for an image with so many channels.

    Colour widths of another number, as learned on RGB, give way to their geometric mean.
    """

    def fit(widths: Width) -> Width:
        if not isinstance(widths, tuple) or len(widths) == channels:
            return widths
        return float(np.exp(np.mean(np.log(widths))))

    extra = [
        kernel
        if kernel.theta_colour is None
        else replace(kernel, theta_colour=fit(kernel.theta_colour))
        for kernel in settings.extra_kernels
    ]
    return settings.with_(
        theta_beta=fit(settings.parameters.theta_beta), extra_kernels=tuple(extra)
    )


def learned_compatibility(model: DeepCRF) -> Array | None:
    """A copy of a model's label compatibility; None for Potts."""
    values = model.crf.compatibility()
    return None if values is None else values.detach().cpu().numpy().copy()


def dense_crf(
    settings: CRFSettings, *, channels: int, compatibility: Array | None = None
) -> DenseCRF:
    """The module that runs mean field with these settings on images of so many channels."""
    import torch

    from napari_deepcrf.crf import DenseCRF

    kind = "potts" if compatibility is None else "full" if compatibility.ndim == 2 else "diagonal"
    crf = DenseCRF(
        settings.parameters,
        iterations=settings.iterations,
        normalization=settings.normalization,
        quality=settings.quality,
        inference=settings.inference,
        self_term=settings.self_term,
        extra_kernels=settings.extra_kernels,
        channels=channels,
        compatibility=kind,
        num_classes=None if compatibility is None else len(compatibility),
    )
    if compatibility is not None:
        crf.compatibility.load_state_dict({"values": torch.from_numpy(compatibility)})
    return crf
