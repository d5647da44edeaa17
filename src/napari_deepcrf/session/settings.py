"""The dense CRF's settings as one frozen value, so that results can carry them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

from napari_deepcrf.crf import CRFParameters, KernelParameters

Quality = Literal["fast", "accurate", "exact"]
Inference = Literal["parallel", "convergent"]
Compatibility = Literal["learned", "potts"]

MAX_ITERATIONS = 50


@dataclass(frozen=True)
class Keep:
    """Which marginals a result keeps; labels and uncertainty are kept of every update."""

    present_only: bool = False
    """Only of classes that some pixel is labelled with in some update."""
    last_only: bool = False
    """Only of the last update."""


@dataclass(frozen=True, kw_only=True)
class CRFSettings:
    """Kernel parameters and how mean field is run with them.

    Raises
    ------
    ValueError
        For an unknown quality or inference, or iterations outside 1 to 50.
    """

    parameters: CRFParameters
    """Weights and widths of the two Gaussian kernels."""
    iterations: int = 5
    """Number of mean-field updates T."""
    quality: Quality = "fast"
    """Accuracy of the lattice: ``fast``, ``accurate`` (ring, two blurs) or ``exact`` (brute)."""
    inference: Inference = "parallel"
    """``parallel`` updates all pixels at once; ``convergent`` (CCCP) never raises the KL."""
    compatibility: Compatibility = "learned"
    """``potts``, or what the model ``learned`` of how labels go together, if it did."""
    normalization: str = "symmetric"
    """How kernels are normalised, as the model was trained."""
    self_term: bool = True
    """Whether a pixel sends a message to itself, as the model was trained."""
    extra_kernels: tuple[KernelParameters, ...] = ()
    """What the model learned beside the two kernels; no slider moves them."""
    keep: Keep = field(default=Keep(), compare=False)
    """What is kept of a result. Equal settings may differ in it: it changes no number."""

    def __post_init__(self) -> None:
        if not 1 <= self.iterations <= MAX_ITERATIONS:
            raise ValueError(f"iterations: expected 1 to {MAX_ITERATIONS}, got {self.iterations}")
        for name, choices in (
            ("quality", get_args(Quality)),
            ("inference", get_args(Inference)),
            ("compatibility", get_args(Compatibility)),
        ):
            value = getattr(self, name)
            if value not in choices:
                raise ValueError(f"{name}: expected one of {', '.join(choices)}, got {value!r}")

    def with_(self, **changes: Any) -> CRFSettings:
        """Return a copy with the given settings or kernel parameters changed.

        Names of ``CRFParameters`` (``theta_gamma``, ``w_spatial``, …) go to the parameters.
        """
        own = {k: v for k, v in changes.items() if k in type(self).__dataclass_fields__}
        rest = {k: v for k, v in changes.items() if k not in own}
        if rest:
            own["parameters"] = replace(own.get("parameters", self.parameters), **rest)
        return replace(self, **own)
