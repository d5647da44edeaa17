"""Cached scores of one image, and mean field over them with lattices that are reused."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

from napari_deepcrf.session.crf_from_settings import dense_crf, fit_to_channels

if TYPE_CHECKING:
    from torch import Tensor

    from napari_deepcrf.crf import DenseCRF
    from napari_deepcrf.crf.prepared import PreparedImages
    from napari_deepcrf.session.region import Region
    from napari_deepcrf.session.settings import CRFSettings

Array = npt.NDArray[Any]
_Result = TypeVar("_Result")


@dataclass(eq=False)
class UnaryCache:
    """Scores (L, H, W) of an image (H, W, C) in 0–255, and the lattices built for it last.

    Only one job at a time may use it: lattices are exchanged in place.
    """

    image_key: Hashable
    unary_name: str
    image: Array
    scores: Array
    class_names: tuple[str, ...]
    device: str = "cpu"
    compatibility: Array | None = None
    """What the model learned: (L, L), its diagonal (L,), or None for Potts."""
    rows: tuple[int, ...] | None = None
    """The classes of the L rows of scores, ascending, where the others are out of the question;
    None: all of ``class_names``."""
    reduced: tuple[Region, UnaryCache] | None = field(default=None, repr=False)
    """The region looked at last, cut out and reduced, with its own lattices."""
    _prepared: PreparedImages | None = field(default=None, repr=False)

    def adopt_lattices(self, other: UnaryCache) -> None:
        """Start from the lattices of a cache of the same image."""
        self._prepared = other._prepared

    def trace(self, settings: CRFSettings) -> Iterator[Tensor]:
        """Yield the (L, H, W) marginals of update 0…T, by the fastest path there is.

        Only a kernel that differs from the last call's is built again. The fastest path makes all
        updates before the first is yielded, (T+1, L, H, W) float32. If the GPU's memory does not
        suffice, this and all later calls use the CPU.
        """
        import torch

        def work() -> Tensor:
            crf, scores, image = self._ready(settings)
            with torch.inference_mode():
                return crf.trace(scores, image, prepared=self._prepared)[:, 0]

        yield from self._where_there_is_room(work)

    def labels(self, settings: CRFSettings) -> Array:
        """(H, W) most probable class of the last update alone; memory as for ``trace``."""
        import torch

        def work() -> Array:
            crf, scores, image = self._ready(settings)
            with torch.inference_mode():
                marginals = crf(scores, image, prepared=self._prepared)[0]
                labels = np.asarray(marginals.max(dim=0).indices.to(torch.uint8).cpu().numpy())
            return labels if self.rows is None else np.array(self.rows, np.uint8)[labels]

        return self._where_there_is_room(work)

    def divergence(self, settings: CRFSettings) -> Iterator[float]:
        """Yield KL(q ‖ p) up to a constant, per pixel in nats, after update 0…T."""
        import torch

        crf, scores, image = self._ready(settings)
        pixels = scores.shape[2] * scores.shape[3]
        updates = crf.updates(scores, image, prepared=self._prepared)
        value = float("nan")
        for _ in range(settings.iterations + 1):
            with torch.inference_mode():
                update = next(updates, None)
            # Updates end early where nothing changes any more; the value then stays.
            value = value if update is None else float(update.kl) / pixels
            yield value

    def _where_there_is_room(self, work: Callable[[], _Result]) -> _Result:
        import torch

        from napari_deepcrf.device import with_fallback

        def attempt(device: torch.device) -> _Result:
            self.device = str(device)
            return work()

        return with_fallback(torch.device(self.device), attempt)

    def _ready(self, settings: CRFSettings) -> tuple[DenseCRF, Tensor, Tensor]:
        """The module, scores (1, L, H, W) and image (1, C, H, W), with lattices prepared."""
        import torch

        image = torch.from_numpy(self.image).permute(2, 0, 1)[None].to(self.device)
        scores = torch.from_numpy(self.scores)[None].to(self.device)
        learned = self.compatibility if settings.compatibility == "learned" else None
        settings = fit_to_channels(settings, image.shape[1])
        crf = dense_crf(settings, channels=image.shape[1], compatibility=learned).to(self.device)
        with torch.inference_mode():
            self._prepared = crf.prepare(image, previous=self._prepared)
        return crf, scores, image
