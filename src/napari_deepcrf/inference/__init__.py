"""Segmenting arrays: one image, images larger than memory, stacks and volumes.

`Predictor`, `segment` and `refine` take one image that fits. The modules beside it take more:

- `large`: an image of any size by tiles, from arrays on disk or in memory, into OME-Zarr.
- `stack`: a stack plane by plane, computed when it is looked at.
- `volume`: one 3-D CRF over the planes of a stack.
- `memory`: what all of these take, before they start.
"""

from napari_deepcrf.inference.predictor import (
    Predictor,
    ProgressCallback,
    Segmentation,
    refine,
    segment,
)

__all__ = ["Predictor", "ProgressCallback", "Segmentation", "refine", "segment"]
