"""Segmenting arrays: checked at the edge, tensors inside."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from napari_deepcrf.crf import CRFParameters, DenseCRF
from napari_deepcrf.data.images import as_channels, as_rgb
from napari_deepcrf.device import network_precision, release_memory, resolve_device, with_fallback
from napari_deepcrf.models.deepcrf import DeepCRF

ProgressCallback = Callable[[int, int], None]
"""Called with (units of work done, units in all)."""

_LEAST_PROBABILITY = 1e-6
"""Smaller ones count as this much, so that their logarithms are finite."""


@dataclass(frozen=True)
class Segmentation:
    """What a model says about an H × W image with L classes after T mean-field updates."""

    unary: NDArray[np.float32]
    """(L, H, W) scores of the network: log-probabilities up to a constant per pixel."""
    marginals: NDArray[np.float32]
    """(T+1, L, H, W) marginals of every update; the first are the softmax of the scores."""
    labels: NDArray[np.uint8]
    """(H, W) most probable class of the last update."""
    class_names: tuple[str, ...]


class Predictor:
    """A model ready for images, on a device.

    On CUDA GPUs the network runs in half precision and the CRF in float32. An image for which
    the GPU's memory does not suffice is done on the CPU, with a warning in the log.

    Parameters
    ----------
    model
        A `DeepCRF` (moved to the device), a name of the zoo or a checkpoint's path.
    device
        What `resolve_device` takes.
    """

    def __init__(self, model: DeepCRF | str | Path, device: str = "auto") -> None:
        self.device = resolve_device(device)
        loaded = model if isinstance(model, DeepCRF) else DeepCRF.load(model)
        self.model = loaded.to(self.device).eval()
        if self.device.type == "cuda":
            self.model.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the L classes."""
        return self.model.class_names

    @torch.inference_mode()
    def unary(self, image: Any) -> NDArray[np.float32]:
        """(L, H, W) scores of the network alone, for an image that `as_rgb` takes and checks."""
        pixels = as_rgb(image)

        def work(device: torch.device) -> NDArray[np.float32]:
            with self.model_on(device):
                return _array(self._scores(_tensor(pixels, device))[0])

        return with_fallback(self.device, work)

    @torch.inference_mode()
    def segment(self, image: Any, on_progress: ProgressCallback | None = None) -> Segmentation:
        """Network and mean field on an image that `as_rgb` takes and checks.

        ``on_progress`` is called before and after each of the two parts; an exception that it
        raises stops the work and reaches the caller.
        """
        report = on_progress or (lambda done, total: None)
        report(0, 2)
        pixels = as_rgb(image)

        def work(device: torch.device) -> Segmentation:
            with self.model_on(device):
                tensor = _tensor(pixels, device)
                scores = self._scores(tensor)
                report(1, 2)
                trace = self.model.crf.trace(scores, tensor)[:, 0]
            return Segmentation(
                unary=_array(scores[0]),
                marginals=_array(trace),
                labels=_most_probable(trace[-1]),
                class_names=self.class_names,
            )

        result = with_fallback(self.device, work)
        report(2, 2)
        return result

    def labels(self, image: Any, *, memory: int | None = None) -> NDArray[np.uint8]:
        """(H, W) most probable classes of the last update, in less memory than ``segment`` takes.

        In tiles where the image would take more than ``memory`` bytes (of the whole process; by
        default half of what is free), or where a GPU has no room for it.

        Raises
        ------
        ValueError
            As ``segment`` does, and where even the smallest tiles take more than ``memory``.
        """
        from napari_deepcrf.inference.memory import fits
        from napari_deepcrf.inference.tiled_image import TiledImage

        pixels = np.asarray(image)
        if pixels.ndim > 1 and not fits(pixels.shape[:2], len(self.class_names), limit=memory):
            return TiledImage(pixels, self, memory=memory).labels()

        def work(device: torch.device) -> NDArray[np.uint8]:
            with self.model_on(device), torch.inference_mode():
                tensor = _tensor(as_rgb(pixels), device)
                marginals = self.model.crf(self._scores(tensor), tensor)[0]
                return _most_probable(marginals)

        def in_tiles(_device: torch.device) -> NDArray[np.uint8]:
            # Every tile looks for a device that has room for it.
            return TiledImage(pixels, self, memory=memory).labels()

        return with_fallback(self.device, work, in_tiles=in_tiles)

    def _scores(self, tensor: torch.Tensor) -> torch.Tensor:
        with network_precision(tensor.device):
            return self.model.unary(tensor)

    @contextmanager
    def model_on(self, device: torch.device) -> Iterator[None]:
        """The model on another device for as long as the block lasts."""
        self.model.to(device)
        try:
            yield
        finally:
            self.model.to(self.device)
            release_memory(self.device)


def segment(image: Any, model: DeepCRF | str | Path = "voc-compact") -> Segmentation:
    """Segment an image that `as_rgb` takes with a model, a name of the zoo or a checkpoint's path.

    On the first CUDA GPU, or the CPU where there is none; `Predictor` takes other devices.

    Raises
    ------
    ValueError, TypeError
        For what is no image, and ValueError for a file that is no checkpoint.
    FileNotFoundError
        If there is no such model.
    """
    return Predictor(model).segment(image)


@torch.inference_mode()
def refine(
    image: Any,
    probabilities: Any,
    params: CRFParameters | None = None,
    *,
    iterations: int = 5,
    backend: str = "auto",
    device: str = "auto",
) -> NDArray[np.float32]:
    """Run a dense CRF over another tool's probabilities.

    Parameters
    ----------
    image
        (H, W) or (H, W, C) with any number of channels C.
    probabilities
        (L, H, W), not negative; normalised over the labels if they do not sum to 1.
    params
        Weights and widths; by default those of `CRFParameters`.
    iterations, backend
        See `DenseCRF`.
    device
        What `resolve_device` takes; the CPU helps out where a GPU's memory does not suffice.

    Returns
    -------
    (L, H, W) marginals.

    Raises
    ------
    ValueError
        For shapes that do not belong together, negative or not finite probabilities.
    TypeError
        For probabilities that are no real numbers.
    """
    pixels = as_channels(image)
    given = np.asarray(probabilities)
    if not np.issubdtype(given.dtype, np.floating) and not np.issubdtype(given.dtype, np.integer):
        raise TypeError(f"probabilities: expected real numbers, got {given.dtype}")
    given = given.astype(np.float32)
    if given.ndim != 3 or given.shape[1:] != pixels.shape[:2] or given.shape[0] < 2:
        raise ValueError(
            f"probabilities: expected (L, {pixels.shape[0]}, {pixels.shape[1]}) with L ≥ 2, "
            f"got {given.shape}"
        )
    total = given.sum(axis=0, keepdims=True)
    if not np.isfinite(given).all() or given.min() < 0 or total.min() <= 0:
        raise ValueError("probabilities: expected finite values ≥ 0 with a positive sum per pixel")
    scores = torch.from_numpy(np.log(np.maximum(given / total, _LEAST_PROBABILITY)))[None]
    crf = DenseCRF(params, iterations=iterations, backend=backend, channels=pixels.shape[2])

    def work(device: torch.device) -> NDArray[np.float32]:
        return _array(crf.to(device)(scores.to(device), _tensor(pixels, device))[0])

    return with_fallback(resolve_device(device), work)


def _most_probable(marginals: torch.Tensor) -> NDArray[np.uint8]:
    """(H, W) classes of marginals (L, H, W)."""
    labels: NDArray[np.uint8] = marginals.max(0).indices.to(torch.uint8).cpu().numpy()
    return labels


def _array(tensor: torch.Tensor) -> NDArray[np.float32]:
    array: NDArray[np.float32] = tensor.float().cpu().numpy()
    return array


def _tensor(pixels: NDArray[np.float32], device: torch.device) -> torch.Tensor:
    return torch.from_numpy(pixels).permute(2, 0, 1)[None].contiguous().to(device)
