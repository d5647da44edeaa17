"""Compiling the CPU kernels ahead of their first use."""

from __future__ import annotations

import torch

from napari_deepcrf.crf.dense_crf import DenseCRF


def warm_up(labels: int, *, channels: int = 3) -> None:
    """Compile, or load from the cache on disk, what inference and learning with so many labels run.

    Code differs by the number of labels (up to 4, up to 8, then in steps of 8) and of image
    channels. Takes tens of seconds once per machine, about a second after that, and holds the GIL
    for most of either: call it from another process, or from a thread, early.
    """
    generator = torch.Generator().manual_seed(0)
    image = 255 * torch.rand(1, channels, 8, 9, generator=generator)
    scores = torch.randn(1, labels, 8, 9, generator=generator)
    for quality in ("fast", "accurate"):
        crf = DenseCRF(quality=quality, iterations=1, channels=channels, backend="numba")
        with torch.inference_mode():
            prepared = crf.prepare(image)
            crf(scores, image, prepared=prepared)
            crf.trace(scores, image, prepared=prepared)
            for _ in crf.updates(scores, image, prepared=prepared):
                pass
        crf(scores.clone().requires_grad_(), image).log().mean().backward()
