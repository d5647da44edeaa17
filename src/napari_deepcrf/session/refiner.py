"""Cached scores of one image, and mean field over them with lattices that are reused."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch

    from napari_deepcrf.crf import DenseCRF
    from napari_deepcrf.crf.prepared import PreparedImages
    from napari_deepcrf.session.settings import CRFSettings

Array = npt.NDArray[Any]


@dataclass(eq=False)
class UnaryCache:
    """Scores (L, H, W) of an image (H, W, C) in 0–255, and the lattices built for it last.

    Only one job at a time may iterate ``updates``: lattices are exchanged in place.
    """

    image_key: Hashable
    unary_name: str
    image: Array
    scores: Array
    class_names: tuple[str, ...]
    _prepared: PreparedImages | None = field(default=None, repr=False)
    _quality: str = field(default="", repr=False)

    def updates(self, settings: CRFSettings) -> Iterator[tuple[torch.Tensor, float | None]]:
        """Yield ((L, H, W) marginals, KL value or None) for update 0…T.

        Only a kernel whose widths differ from the last call's is built again.
        """
        import torch

        image = torch.from_numpy(np.ascontiguousarray(self.image, dtype=np.float32))
        image = image[:, :, None] if image.ndim == 2 else image
        image = image.permute(2, 0, 1)[None]
        scores = torch.from_numpy(np.ascontiguousarray(self.scores, dtype=np.float32))[None]
        with torch.no_grad():
            crf = dense_crf(settings, channels=image.shape[1])
            previous = self._prepared if self._quality == settings.quality else None
            self._prepared = crf.prepare(image, previous=previous)
            self._quality = settings.quality
            trace = crf.trace(scores, image, prepared=self._prepared)
        for marginals in trace:
            yield marginals[0], None


def dense_crf(settings: CRFSettings, *, channels: int) -> DenseCRF:
    """The module that runs mean field with these settings on images of so many channels."""
    from napari_deepcrf.crf import DenseCRF

    return DenseCRF(
        settings.parameters,
        iterations=settings.iterations,
        quality=settings.quality,
        channels=channels,
    )
