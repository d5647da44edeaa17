"""Validation IoU over the iterations of both stages (figure 4), as SVG and PNG."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from napari_deepcrf.atomic import atomic_write

_WIDTH, _HEIGHT = 420, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 14, 30, 44
_BLUE = "#1f77b4"

Point = tuple[float, float]


@dataclass(frozen=True)
class _Panel:
    """One stage's curve, in pixels: the axes' ticks and the line."""

    title: str
    line: tuple[Point, ...]
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]


def write_curves(folder: Path, events: Sequence[dict[str, Any]]) -> Iterator[Path]:
    """Draw the curves of a run's events into ``curves.svg`` and ``curves.png``."""
    panels = [
        _panel(stage, offset * _WIDTH, values)
        for offset, (stage, values) in enumerate(_series(events).items())
    ]
    svg, png = folder / "curves.svg", folder / "curves.png"
    with atomic_write(svg) as file:
        file.write(_svg(panels).encode())
    yield svg
    with atomic_write(png) as file:
        _png(panels).save(file, format="PNG")
    yield png


def _series(events: Sequence[dict[str, Any]]) -> dict[str, list[Point]]:
    series: dict[str, list[Point]] = {}
    for event in events:
        if event["event"] == "Validated":
            point = (float(event["step"]), 100 * float(event["mean_iou"]))
            series.setdefault(event["stage"], []).append(point)
    return series


def _panel(stage: str, offset: float, values: list[Point]) -> _Panel:
    steps, figures = [x for x, _ in values], [y for _, y in values]
    last = max(max(steps), 1.0)
    low, high = _padded(min(figures), max(figures))

    def place(step: float, figure: float) -> Point:
        across = step / last * (_WIDTH - _LEFT - _RIGHT)
        up = (figure - low) / (high - low) * (_HEIGHT - _TOP - _BOTTOM)
        return offset + _LEFT + across, _HEIGHT - _BOTTOM - up

    fractions = (0.0, 0.25, 0.5, 0.75, 1.0)
    return _Panel(
        title=f"{stage} stage, mean IoU in %",
        line=tuple(place(x, y) for x, y in values),
        x_ticks=tuple((place(f * last, low)[0], f"{f * last:g}") for f in fractions),
        y_ticks=tuple(
            (place(0, low + f * (high - low))[1], f"{low + f * (high - low):.1f}")
            for f in fractions
        ),
    )


def _padded(low: float, high: float) -> tuple[float, float]:
    margin = max(0.1 * (high - low), 0.5)
    return max(0.0, low - margin), high + margin


def _svg(panels: list[_Panel]) -> str:
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH * len(panels)}" '
        f'height="{_HEIGHT}" font-family="sans-serif" font-size="11">',
        '<rect width="100%" height="100%" fill="white"/>',
    ]
    for number, panel in enumerate(panels):
        left, right = number * _WIDTH + _LEFT, (number + 1) * _WIDTH - _RIGHT
        bottom = _HEIGHT - _BOTTOM
        parts.append(f'<text x="{left}" y="18">{panel.title}</text>')
        for x, text in panel.x_ticks:
            parts.append(f'<text x="{x:.1f}" y="{bottom + 16}" text-anchor="middle">{text}</text>')
        for y, text in panel.y_ticks:
            parts.append(f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{text}</text>')
            parts.append(f'<path d="M{left} {y:.1f}H{right}" stroke="#ddd"/>')
        parts.append(f'<text x="{(left + right) / 2}" y="{bottom + 36}">iteration</text>')
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in panel.line)
        parts.append(f'<polyline points="{points}" fill="none" stroke="{_BLUE}" stroke-width="2"/>')
    return "\n".join([*parts, "</svg>", ""])


def _png(panels: list[_Panel]) -> Image.Image:
    image = Image.new("RGB", (_WIDTH * len(panels), _HEIGHT), "white")
    draw = ImageDraw.Draw(image)
    for number, panel in enumerate(panels):
        left, right = number * _WIDTH + _LEFT, (number + 1) * _WIDTH - _RIGHT
        bottom = _HEIGHT - _BOTTOM
        draw.text((left, 8), panel.title, fill="black")
        for x, text in panel.x_ticks:
            draw.text((x, bottom + 6), text, fill="black", anchor="ma")
        for y, text in panel.y_ticks:
            draw.text((left - 6, y), text, fill="black", anchor="rm")
            draw.line((left, y, right, y), fill="#ddd")
        draw.text(((left + right) / 2, bottom + 24), "iteration", fill="black")
        draw.line(panel.line, fill=_BLUE, width=2)
    return image
