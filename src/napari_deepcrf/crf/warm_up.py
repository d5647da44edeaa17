"""Compiling the CPU kernels ahead of their first use."""

from __future__ import annotations

import torch
from torch import Tensor

from napari_deepcrf.crf.dense_crf import DenseCRF


def warm_up(labels: int, *, channels: int = 3) -> None:
    """Compile, or load from the cache on disk, what inference and learning with so many labels run.

    Code differs by the number of labels (up to 4, up to 8, then in steps of 8) and of image
    channels. Takes tens of seconds once per machine, about a second after that, and holds the GIL
    for most of either: call it from another process, or from a thread, early.
    """
    warm_up_segmenting(labels, channels=channels)
    image, scores = _problem(labels, channels)
    _infer(_crf("accurate", channels), scores, image)
    for quality in ("fast", "accurate"):
        leaf = scores.clone().requires_grad_()
        _crf(quality, channels)(leaf, image).log().mean().backward()


def warm_up_segmenting(labels: int, *, channels: int = 3) -> None:
    """As `warm_up`, but only what inference in the quality ``"fast"`` runs: some half of it."""
    image, scores = _problem(labels, channels)
    _infer(_crf("fast", channels), scores, image)


def _crf(quality: str, channels: int) -> DenseCRF:
    return DenseCRF(quality=quality, iterations=1, channels=channels, backend="numba")


def _problem(labels: int, channels: int) -> tuple[Tensor, Tensor]:
    """A small image (1, channels, H, W) and scores (1, labels, H, W)."""
    generator = torch.Generator().manual_seed(0)
    image = 255 * torch.rand(1, channels, 8, 9, generator=generator)
    return image, torch.randn(1, labels, 8, 9, generator=generator)


@torch.inference_mode()
def _infer(crf: DenseCRF, scores: Tensor, image: Tensor) -> None:
    prepared = crf.prepare(image)
    crf(scores, image, prepared=prepared)
    crf.trace(scores, image, prepared=prepared)
    for _ in crf.updates(scores, image, prepared=prepared):
        pass
