"""What training on scribbles may vary."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from napari_deepcrf.crf import CRFParameters
from napari_deepcrf.data.samples import SegmentationDataset

_PHOTOGRAPH_SIDE = 600.0
"""Pixels of the longer side of the images that the recipe's θα is meant for."""


@dataclass(frozen=True, kw_only=True)
class ScribbleConfig:
    """A finer top layer on fixed hidden layers, see `ScribbleTrainer`."""

    crf: CRFParameters = field(
        default_factory=lambda: CRFParameters(
            w_spatial=3.0, theta_gamma=3.0, w_bilateral=5.0, theta_alpha=60.0, theta_beta=10.0
        )
    )
    """Where the nine parameters start for a photograph; see `adapted_crf`."""
    rounds: int = 2
    """Fits after the first, in which the CRF's marginals label the unlabelled pixels."""
    taught_pixels: int = 4000
    """Unlabelled pixels, of all images together, that such a fit looks at."""
    iterations: int = 6
    """Steps of stage 2."""
    top_learning_rate: float = 1e-3
    """Rate of the top layer in stage 2, by SGD with momentum 0.9."""
    crf_learning_rate: float = 0.01
    """Rate of the logarithms of the CRF's weights and widths, by Adam."""
    validate_every: int = 3
    """Steps of stage 2 between two validations; stage 1 validates after every fit."""

    def __post_init__(self) -> None:
        if self.rounds < 0 or self.iterations < 0:
            raise ValueError(
                "rounds and iterations: expected at least 0, got "
                f"{self.rounds} and {self.iterations}"
            )
        for name in ("taught_pixels", "top_learning_rate", "crf_learning_rate", "validate_every"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}: expected a positive number, got {getattr(self, name)}")


def adapted_crf(start: CRFParameters, train: SegmentationDataset) -> CRFParameters:
    """The recipe's parameters, meant for `_PHOTOGRAPH_SIDE` pixels, for images of other sizes.

    θα keeps its share of the longer side, the median over the images.
    """
    longer = sorted(max(train[index].labels.shape) for index in range(len(train)))
    factor = longer[len(longer) // 2] / _PHOTOGRAPH_SIDE
    alpha = start.theta_alpha
    scaled = tuple(factor * one for one in alpha) if isinstance(alpha, tuple) else factor * alpha
    return replace(start, theta_alpha=scaled)
