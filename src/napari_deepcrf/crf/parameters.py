"""The nine numbers of the dense CRF, and those of one kernel, as plain, validated values.

Nothing here needs torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from numbers import Real
from typing import Any

Width = float | tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class CRFParameters:
    """Weights and widths of the spatial and the bilateral Gaussian kernel [paper, eq. 9].

    A width is one number for all axes or channels, or one number for each: (y, x), (z, y, x), or
    one per image channel.

    Raises
    ------
    ValueError
        For a number that is not positive and finite.
    TypeError
        For what is no number.
    """

    w_spatial: float = 3.0
    """Weight of the spatial kernel, in units of the scores (nats)."""
    theta_gamma: Width = 3.0
    """Width of the spatial kernel, pixels."""
    w_bilateral: float = 10.0
    """Weight of the bilateral kernel, in units of the scores (nats)."""
    theta_alpha: Width = 80.0
    """Width of the bilateral kernel over positions, pixels."""
    theta_beta: Width = 13.0
    """Width of the bilateral kernel over colours, grey levels of 0-255."""

    def __post_init__(self) -> None:
        for name in ("w_spatial", "w_bilateral"):
            object.__setattr__(self, name, _positive(name, getattr(self, name)))
        for name in ("theta_gamma", "theta_alpha", "theta_beta"):
            object.__setattr__(self, name, _width(name, getattr(self, name)))

    def to_dict(self) -> dict[str, float | list[float]]:
        """Plain numbers and lists, ready for JSON."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> CRFParameters:
        """Read ``to_dict``'s result; names that are left out take their defaults.

        Raises
        ------
        ValueError
            For an unknown name.
        ValueError, TypeError
            As the constructor.
        """
        known = {f.name for f in fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise ValueError(f"CRF parameters: unknown name {unknown[0]!r}, known: {sorted(known)}")
        return cls(**values)


@dataclass(frozen=True, kw_only=True)
class KernelParameters:
    """Weight and widths of one Gaussian kernel.

    Widths are given as those of `CRFParameters`; without ``theta_colour`` the kernel compares
    positions alone.

    Raises
    ------
    ValueError
        For a number that is not positive and finite.
    TypeError
        For what is no number.
    """

    weight: float
    """In units of the scores (nats)."""
    theta_position: Width
    """Pixels."""
    theta_colour: Width | None = None
    """Grey levels of 0-255."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "weight", _positive("weight", self.weight))
        for name in ("theta_position", "theta_colour"):
            value = getattr(self, name)
            if value is not None or name == "theta_position":
                object.__setattr__(self, name, _width(name, value))


def _positive(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name}: expected a number, got {value!r}")
    number = float(value)
    if not (math.isfinite(number) and number > 0):
        raise ValueError(f"{name}: expected a positive, finite number, got {value!r}")
    return number


def _width(name: str, value: object) -> Width:
    if isinstance(value, str) or not isinstance(value, Sequence):
        return _positive(name, value)
    if not value:
        raise ValueError(f"{name}: expected at least one number, got none")
    return tuple(_positive(name, v) for v in value)
