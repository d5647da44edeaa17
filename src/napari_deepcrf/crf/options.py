"""The dense CRF's choices: checked in one place, and what each means for its kernels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from napari_deepcrf.crf.checks import check_whole
from napari_deepcrf.crf.prepared import Method
from napari_deepcrf.crf.reductions import mean, scaled
from napari_deepcrf.lattice.kernels import BACKENDS

Normalization = Literal["symmetric", "before", "after", "none"]
Quality = Literal["fast", "accurate", "exact"]
Inference = Literal["parallel", "convergent"]


@dataclass(frozen=True, kw_only=True)
class InferenceOptions:
    """How mean field runs; `DenseCRF` says what each choice means.

    Raises
    ------
    ValueError
        For an unknown choice, or one that another rules out.
    TypeError
        If ``iterations`` is no whole number.
    """

    iterations: int
    normalization: Normalization
    quality: Quality
    inference: Inference
    self_term: bool
    backend: str

    def __post_init__(self) -> None:
        check_whole("iterations", self.iterations, least=0)
        _check("normalization", self.normalization, get_args(Normalization))
        _check("quality", self.quality, get_args(Quality))
        _check("inference", self.inference, get_args(Inference))
        _check("backend", self.backend, ("auto", *BACKENDS))
        if self.inference == "convergent" and self.normalization in ("before", "after"):
            raise ValueError(
                "normalization: convergent inference needs a symmetric operator, so symmetric or "
                f"none; got {self.normalization!r}"
            )

    def method(self, *, spatial: bool) -> Method:
        """How a kernel over positions alone, or over positions and colours, is applied."""
        if self.quality == "exact":
            return Method("grid" if spatial else "brute force")
        if self.quality == "accurate":
            return Method("grid") if spatial else Method("lattice", ring=True, passes=2)
        # The convergent updates need the symmetry that only two passes have.
        return Method("lattice", passes=2 if self.inference == "convergent" else 1)


def normalizers(
    row_sum: Tensor, normalization: Normalization, images: int
) -> tuple[Tensor, Tensor]:
    """Factors before and after a kernel K, each (N,), for its row sums D = K·1 (N,).

    symmetric: D^-1/2 K D^-1/2; before: K D^-1; after: D^-1 K. none: K over its mean row sum in
    each of the images, so that weights mean the same in images of every size.
    """
    one = torch.ones_like(row_sum)
    if normalization == "symmetric":
        root = row_sum.rsqrt()
        return root, root
    if normalization == "before":
        return row_sum.reciprocal(), one
    if normalization == "after":
        return one, row_sum.reciprocal()
    parts = zip(one.view(images, -1), row_sum.view(images, -1), strict=True)
    return one, torch.cat([scaled(ones, mean(sums).reciprocal()) for ones, sums in parts])


def _check(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ValueError(f"{name}: expected one of {', '.join(known)}; got {value!r}")
