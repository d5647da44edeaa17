"""Compiling ahead of the first use."""

from __future__ import annotations

import torch

from napari_deepcrf.lattice.filter import filter_on
from napari_deepcrf.lattice.lattice import Lattice
from napari_deepcrf.lattice.numba_fused import mean_field
from napari_deepcrf.lattice.scaled import ScaledLattice


def warm_up(labels: int, *, channels: int = 3, image_dims: int = 2) -> None:
    """Compile, or load from the cache on disk, what inference with so many labels runs.

    Code differs by the number of labels, in steps of four, and by the kernels' dimensions: those
    of positions and of positions with image channels. Takes some ten seconds once per machine,
    about a second after that, and holds the GIL for most of either: call it from a thread, early.
    """
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(64, image_dims + channels, generator=generator)
    scores = torch.rand(labels, len(points), generator=generator)
    ones = torch.ones(len(points))
    with torch.inference_mode():
        for passes in (1, 2):
            features = points[:, :image_dims].contiguous(), points
            lattices = [
                Lattice.build(f, ring=passes == 2, passes=passes, backend="numba") for f in features
            ]
            for lattice in lattices:
                filter_on(lattice, ones[:, None])
            kernels = [ScaledLattice(lattice, lattice.weight, ones, ones) for lattice in lattices]
            mean_field(scores.T, kernels, 1, keep_all=passes == 2)
