"""Results that know what made them, in the layout that napari shows."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch

    from napari_deepcrf.session.settings import CRFSettings, Keep

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
    """One segmentation: L classes, T updates, H×W pixels; update 0 is softmax(unary).

    K of the classes and U of the updates have their marginals kept, see `Keep`.
    """

    identity: Identity
    class_names: tuple[str, ...]
    classes: tuple[int, ...]
    """The K kept classes, ascending."""
    unary: Array
    """(K, H, W) float32 scores."""
    marginals: Array
    """(K, U, H, W) float16: class before update, so that viewers align the update axis. U is T + 1,
    or 1 for the last update alone."""
    history: Array
    """(T+1, H, W) class index of every update."""
    uncertainty: Array
    """(T+1, H, W) float16: one minus the margin between the two best classes."""
    changed: tuple[float, ...]
    """Share of pixels whose label changed in update 1…T."""
    largest_class: int
    """The class of most labels, the first apart, unless there is no other."""
    score_range: tuple[float, float]
    """Least and greatest of the scores."""

    @property
    def labels(self) -> Array:
        """(H, W) class index after the last update."""
        return np.asarray(self.history[-1])

    @property
    def iterations(self) -> int:
        """Number of updates T."""
        return len(self.history) - 1

    @property
    def first_update(self) -> int:
        """The update that the marginals begin with: 0 or T."""
        return len(self.history) - int(self.marginals.shape[1])

    @property
    def kept_names(self) -> tuple[str, ...]:
        """Names of the K kept classes."""
        return tuple(self.class_names[k] for k in self.classes)

    def probability(self, label: int, update: int, row: int, column: int) -> float | None:
        """Marginal of a class at a pixel; None where it was not kept."""
        if label not in self.classes or update < self.first_update:
            return None
        kept = self.classes.index(label), update - self.first_update
        return float(self.marginals[(*kept, row, column)])


class ResultBuilder:
    """Collects the marginals update by update, converting each while it is still in the cache.

    Which classes are present is known at the end only: then the updates are held till then.
    ``rows`` are the classes of the unary's rows, ascending, if those are not all there are.
    """

    def __init__(
        self, unary: Array, iterations: int, keep: Keep, rows: tuple[int, ...] | None = None
    ) -> None:
        classes, height, width = unary.shape
        self._rows = np.arange(classes) if rows is None else np.array(rows)
        updates = iterations + 1
        self._unary, self._keep = unary, keep
        self._waiting: list[torch.Tensor] = []
        dtype = np.uint8 if self._rows[-1] < np.iinfo(np.uint8).max else np.uint16
        self._rows = self._rows.astype(dtype)
        self._history = np.empty((updates, height, width), dtype)
        self._uncertainty = np.empty((updates, height, width), np.float16)
        self._marginals = np.empty(
            (0 if keep.present_only else classes, 1 if keep.last_only else updates, height, width),
            np.float16,
        )
        self._changed: list[float] = []
        self._filled = 0

    def add(self, marginals: torch.Tensor) -> None:
        """Store the next update's (L, H, W) marginals."""
        import torch

        t = self._filled
        with torch.inference_mode():
            marginals = marginals.contiguous()
            self._store(marginals, t)
            label, margin = _label_and_margin(marginals)
            torch.from_numpy(self._uncertainty)[t].copy_(1 - margin)
        self._history[t] = self._rows[label.cpu().numpy()]
        if t:
            self._changed.append(float((self._history[t] != self._history[t - 1]).mean()))
        self._filled += 1

    def build(self, identity: Identity, class_names: tuple[str, ...]) -> Result:
        """Return the result; fewer updates than announced (stopped early) are cut off."""
        end = self._filled
        history = self._history[:end]
        rows = np.arange(len(self._rows))
        if self._keep.present_only:
            rows = np.flatnonzero(np.isin(self._rows, history))
            marginals = self._gather(rows)
        else:
            marginals = self._marginals[:, :end]
        unary = self._unary if len(rows) == len(self._unary) else self._unary[rows]
        counts = np.bincount(history[-1].ravel(), minlength=len(class_names))
        return Result(
            identity=identity,
            class_names=class_names,
            classes=tuple(self._rows[rows].tolist()),
            unary=unary,
            marginals=marginals,
            history=history,
            uncertainty=self._uncertainty[:end],
            changed=tuple(self._changed),
            largest_class=int(np.argmax(counts[1:]) + 1) if counts[1:].any() else 0,
            score_range=(float(unary.min()), float(unary.max())),
        )

    def _store(self, marginals: torch.Tensor, t: int) -> None:
        import torch

        if self._keep.present_only:
            self._waiting = [marginals] if self._keep.last_only else [*self._waiting, marginals]
        else:
            torch.from_numpy(self._marginals)[:, 0 if self._keep.last_only else t].copy_(marginals)

    def _gather(self, rows: Array) -> Array:
        """(K, U, H, W) float16 of the updates held; lets go of them one by one."""
        shape = (len(rows), len(self._waiting), *self._history.shape[1:])
        gathered = np.empty(shape, np.float16)
        for u in range(len(self._waiting)):
            gathered[:, u] = self._waiting.pop(0)[rows].cpu().numpy()
        return gathered


def _label_and_margin(marginals: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Of (L, H, W) the first of the largest, (H, W), and how far it lies above the second, or 0.

    Class by class, which stays in the processor's cache: twice as fast as a maximum along the axis
    and another one without it.
    """
    import torch

    best, second = marginals[0].clone(), torch.zeros_like(marginals[0])
    label = torch.zeros_like(best, dtype=torch.int16)
    for index, value in enumerate(marginals[1:], start=1):
        label.masked_fill_(value > best, index)
        torch.maximum(second, torch.minimum(best, value), out=second)
        torch.maximum(best, value, out=best)
    return label, best - second


def memory_needed(classes: int, iterations: int, height: int, width: int, keep: Keep) -> int:
    """Bytes that the arrays of one result will take at most, for the user to see beforehand."""
    updates = 1 if keep.last_only else iterations + 1
    per_pixel = 4 * classes + 2 * classes * updates + (iterations + 1) * (1 + 2)
    return per_pixel * height * width
