"""Learnable kernels and label compatibilities: positive numbers are kept as logarithms."""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from napari_deepcrf.crf.checks import check_whole
from napari_deepcrf.crf.parameters import KernelParameters, Width

CompatibilityKind = Literal["potts", "diagonal", "full"]


class LearnableKernel(nn.Module):
    """Weight and widths of one Gaussian kernel, kept as logarithms [paper, eq. 9].

    Parameters
    ----------
    params
        Initial values.
    image_dims, channels
        How many widths there are where ``params`` gives a single number.
    names
        What messages call the widths over positions and over colours.
    """

    log_theta_colour: nn.Parameter | None

    def __init__(
        self,
        params: KernelParameters,
        *,
        image_dims: int,
        channels: int,
        names: tuple[str, str] = ("theta_position", "theta_colour"),
    ) -> None:
        super().__init__()
        self.names = names
        self.log_weight = nn.Parameter(torch.tensor(math.log(params.weight)))
        self.log_theta_position = _log_widths(params.theta_position, image_dims)
        colour = params.theta_colour
        self.log_theta_colour = None if colour is None else _log_widths(colour, channels)

    @property
    def weight(self) -> Tensor:
        """A scalar."""
        return self.log_weight.exp()

    def widths(self, image_dims: int, channels: int) -> Tensor:
        """Widths (d,) in the order of the kernel's coordinates: x, y, (z,) then the channels.

        Raises
        ------
        ValueError
            If there are neither as many widths as axes and channels, nor all equal ones.
        """
        position = _fit(self.log_theta_position, image_dims, self.names[0]).flip(0)
        if self.log_theta_colour is None:
            return position.exp()
        colour = _fit(self.log_theta_colour, channels, self.names[1])
        return torch.cat([position, colour]).exp()

    def snapshot(self) -> KernelParameters:
        """The current values; equal widths become one number."""
        colour = self.log_theta_colour
        return KernelParameters(
            weight=math.exp(float(self.log_weight.detach())),
            theta_position=_snapshot(self.log_theta_position),
            theta_colour=None if colour is None else _snapshot(colour),
        )

    def describe(self) -> str:
        """The widths by name and value, whatever they are, for messages."""
        text = f"{self.names[0]}={_snapshot(self.log_theta_position)}"
        if self.log_theta_colour is not None:
            text += f", {self.names[1]}={_snapshot(self.log_theta_colour)}"
        return text


class Compatibility(nn.Module):
    """µ(l, l'), the score of a pair of labels: Potts [paper, eq. 9], its diagonal, or all of it.

    It starts as Potts. A full matrix is kept symmetric, as the order of a pair means nothing.

    Raises
    ------
    ValueError
        For an unknown kind, or a missing or zero ``num_classes`` where one is needed.
    TypeError
        For ``num_classes`` that are no whole number.
    """

    values: nn.Parameter | None

    def __init__(self, kind: str, num_classes: int | None) -> None:
        super().__init__()
        if kind not in get_args(CompatibilityKind):
            known = ", ".join(get_args(CompatibilityKind))
            raise ValueError(f"compatibility: expected one of {known}; got {kind!r}")
        if kind == "potts":
            self.values = None
            return
        if num_classes is None:
            raise ValueError(f"num_classes: expected a number for a {kind} compatibility, got none")
        check_whole("num_classes", num_classes, least=1)
        start = torch.ones(num_classes) if kind == "diagonal" else torch.eye(num_classes)
        self.values = nn.Parameter(start)

    def forward(self) -> Tensor | None:
        """(L, L), (L,) for a diagonal, None for Potts."""
        if self.values is None or self.values.ndim == 1:
            return self.values
        return 0.5 * (self.values + self.values.T)


def _log_widths(width: Width, count: int) -> nn.Parameter:
    values = width if isinstance(width, tuple) else (width,) * count
    return nn.Parameter(torch.tensor(values).log())


def _snapshot(log_width: Tensor) -> Width:
    values = tuple(log_width.detach().exp().tolist())
    return values[0] if len(set(values)) == 1 else values


def _fit(log_width: Tensor, count: int, name: str) -> Tensor:
    """Log-widths for ``count`` axes; an isotropic width serves any number of them."""
    if log_width.shape[0] == count:
        return log_width
    if bool((log_width == log_width[0]).all()):
        return log_width.mean().expand(count)
    raise ValueError(
        f"{name}: expected {count} widths, one for each axis or channel of the image, "
        f"got {log_width.shape[0]}"
    )
