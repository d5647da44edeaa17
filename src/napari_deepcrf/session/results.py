"""Results that know what made them, in the layout that napari shows."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch

    from napari_deepcrf.session.settings import CRFSettings

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Identity:
    """What a result was made from. Equal identities mean an equal result."""

    image: Hashable
    """Key of the pixels: layer, revision of its data, and plane."""
    unary: str
    """Source of the scores: the model's name and revision, or another tool's layer."""
    settings: CRFSettings


@dataclass(frozen=True, eq=False)
class Result:
    """One segmentation: L classes, T updates, H×W pixels; update 0 is softmax(unary)."""

    identity: Identity
    class_names: tuple[str, ...]
    unary: Array
    """(L, H, W) float32 scores."""
    marginals: Array
    """(L, T+1, H, W) float16: class before update, so that viewers align the update axis."""
    history: Array
    """(T+1, H, W) class index of every update."""
    uncertainty: Array
    """(T+1, H, W) float16: one minus the margin between the two best classes."""
    changed: tuple[float, ...]
    """Share of pixels whose label changed in update 1…T."""

    @property
    def labels(self) -> Array:
        """(H, W) class index after the last update."""
        return np.asarray(self.history[-1])

    @property
    def iterations(self) -> int:
        """Number of updates T."""
        return len(self.history) - 1


class ResultBuilder:
    """Collects the marginals update by update, converting each while it is still in the cache."""

    def __init__(self, unary: Array, iterations: int) -> None:
        classes, height, width = unary.shape
        updates = iterations + 1
        self.unary = unary
        self.marginals = np.empty((classes, updates, height, width), np.float16)
        dtype = np.uint8 if classes <= np.iinfo(np.uint8).max else np.uint16
        self.history = np.empty((updates, height, width), dtype)
        self.uncertainty = np.empty((updates, height, width), np.float16)
        self.changed: list[float] = []
        self._filled = 0

    def add(self, marginals: torch.Tensor) -> None:
        """Store the next update's (L, H, W) marginals."""
        import torch

        t = self._filled
        with torch.inference_mode():
            marginals = marginals.contiguous()
            torch.from_numpy(self.marginals)[:, t].copy_(marginals)
            best, label = marginals.max(dim=0)
            if marginals.shape[0] > 1:
                others = marginals.scatter(0, label[None], -1.0)
                margin = best - others.amax(dim=0)
            else:
                margin = best
            torch.from_numpy(self.uncertainty)[t].copy_(1 - margin)
        self.history[t] = label.cpu().numpy()
        if t:
            self.changed.append(float((self.history[t] != self.history[t - 1]).mean()))
        self._filled += 1

    def build(self, identity: Identity, class_names: tuple[str, ...]) -> Result:
        """Return the result; fewer updates than announced (stopped early) are cut off."""
        end = self._filled
        return Result(
            identity=identity,
            class_names=class_names,
            unary=self.unary,
            marginals=self.marginals[:, :end],
            history=self.history[:end],
            uncertainty=self.uncertainty[:end],
            changed=tuple(self.changed),
        )


def memory_needed(classes: int, iterations: int, height: int, width: int) -> int:
    """Bytes that the arrays of one result will take, for the user to see beforehand."""
    per_pixel = 4 * classes + (iterations + 1) * (2 * classes + 1 + 2)
    return per_pixel * height * width
