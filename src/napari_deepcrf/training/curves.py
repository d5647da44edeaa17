"""IoU over the iterations of both stages (figure 4), as SVG and PNG."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from napari_deepcrf.atomic import atomic_write

_WIDTH, _HEIGHT = 420, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 24, 48, 44
_COLOURS = {"validation": "#1f77b4", "training": "#d95f02", "best unary": "#777777"}
_DASH = 6
_PNG_SCALE = 2

Point = tuple[float, float]


@dataclass(frozen=True)
class _Panel:
    """One stage's curves, in pixels of its own: the axes' ticks and the lines by name."""

    title: str
    lines: dict[str, tuple[Point, ...]]
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]


def write_curves(folder: Path, events: Sequence[dict[str, Any]]) -> Iterator[Path]:
    """Draw the curves of a run's events into ``curves.svg`` and ``curves.png``."""
    stages = list(dict.fromkeys(e["stage"] for e in events if e["event"] == "Validated"))
    best_unary: float | None = None
    panels = []
    for stage in stages:
        series = _series(stage, events)
        if best_unary is not None:
            steps = [step for step, _ in series["validation"]]
            series["best unary"] = [(min(steps), best_unary), (max(steps), best_unary)]
        else:
            best_unary = max(figure for _, figure in series["validation"])
        panels.append(_panel(stage, series))
    svg, png = folder / "curves.svg", folder / "curves.png"
    with atomic_write(svg) as file:
        file.write(_svg(panels).encode())
    yield svg
    with atomic_write(png) as file:
        _png(panels).save(file, format="PNG")
    yield png


def _series(stage: str, events: Sequence[dict[str, Any]]) -> dict[str, list[Point]]:
    """(step, IoU in per cent) on validation and, where it was measured, on training images."""
    series: dict[str, list[Point]] = {"validation": [], "training": []}
    for event in events:
        if event["event"] == "Validated" and event["stage"] == stage:
            for name, key in (("validation", "mean_iou"), ("training", "train_mean_iou")):
                if event.get(key) is not None:
                    series[name].append((float(event["step"]), 100 * float(event[key])))
    return {name: values for name, values in series.items() if values}


def _panel(stage: str, series: dict[str, list[Point]]) -> _Panel:
    points = [point for values in series.values() for point in values]
    last = max(*(step for step, _ in points), 1.0)
    low, high = _padded(min(y for _, y in points), max(y for _, y in points))

    def place(step: float, figure: float) -> Point:
        across = step / last * (_WIDTH - _LEFT - _RIGHT)
        up = (figure - low) / (high - low) * (_HEIGHT - _TOP - _BOTTOM)
        return _LEFT + across, _HEIGHT - _BOTTOM - up

    fractions = (0.0, 0.25, 0.5, 0.75, 1.0)
    return _Panel(
        title=f"{stage} stage, mean IoU in %",
        lines={name: tuple(place(x, y) for x, y in values) for name, values in series.items()},
        x_ticks=tuple(
            (place(step, low)[0], f"{step}")
            for step in sorted({round(f * last) for f in fractions})
        ),
        y_ticks=tuple(
            (place(0, low + f * (high - low))[1], f"{low + f * (high - low):.1f}")
            for f in fractions
        ),
    )


def _padded(low: float, high: float) -> tuple[float, float]:
    margin = max(0.1 * (high - low), 0.5)
    return max(0.0, low - margin), high + margin


def _legend(panel: _Panel) -> Iterator[tuple[str, float]]:
    """Name and left end of every entry of the line above the curves."""
    left = float(_LEFT)
    for name in panel.lines:
        yield name, left
        left += 40 + 6 * len(name)


def _svg(panels: list[_Panel]) -> str:
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH * len(panels)}" '
        f'height="{_HEIGHT}" font-family="sans-serif" font-size="11">',
        '<rect width="100%" height="100%" fill="white"/>',
    ]
    for number, panel in enumerate(panels):
        parts.append(f'<g transform="translate({number * _WIDTH} 0)">')
        parts += [*_svg_axes(panel), *_svg_lines(panel), "</g>"]
    return "\n".join([*parts, "</svg>", ""])


def _svg_axes(panel: _Panel) -> Iterator[str]:
    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
    yield f'<text x="{_LEFT}" y="16" font-weight="bold">{panel.title}</text>'
    for x, text in panel.x_ticks:
        yield f'<text x="{x:.1f}" y="{bottom + 16}" text-anchor="middle">{text}</text>'
    for y, text in panel.y_ticks:
        yield f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{text}</text>'
        yield f'<path d="M{_LEFT} {y:.1f}H{right}" stroke="#ddd"/>'
    middle = (_LEFT + right) / 2
    yield f'<text x="{middle}" y="{bottom + 36}" text-anchor="middle">iteration</text>'


def _svg_lines(panel: _Panel) -> Iterator[str]:
    for name, left in _legend(panel):
        yield f'<path d="M{left} 32h14" {_stroke(name)}/>'
        yield f'<text x="{left + 18}" y="36">{name}</text>'
    for name, line in panel.lines.items():
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in line)
        yield f'<polyline points="{points}" {_stroke(name)}/>'


def _stroke(name: str) -> str:
    dash = f' stroke-dasharray="{_DASH} {_DASH}"' if name == "best unary" else ""
    return f'fill="none" stroke="{_COLOURS[name]}" stroke-width="2"{dash}'


def _png(panels: list[_Panel]) -> Image.Image:
    """The same, drawn at twice the size so that text is sharp."""
    s = _PNG_SCALE
    image = Image.new("RGB", (s * _WIDTH * len(panels), s * _HEIGHT), "white")
    for number, panel in enumerate(panels):
        image.paste(_png_panel(panel), (s * _WIDTH * number, 0))
    return image


def _png_panel(panel: _Panel) -> Image.Image:
    s = _PNG_SCALE
    image = Image.new("RGB", (s * _WIDTH, s * _HEIGHT), "white")
    draw = ImageDraw.Draw(image)
    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM

    def write(x: float, y: float, text: str, anchor: str) -> None:
        draw.text((s * x, s * y), text, fill="black", anchor=anchor, font_size=11 * s)

    write(_LEFT, 16, panel.title, "ls")
    for name, left in _legend(panel):
        _draw_line(draw, [(left, 32), (left + 14, 32)], name)
        write(left + 18, 36, name, "ls")
    for x, text in panel.x_ticks:
        write(x, bottom + 16, text, "ms")
    for y, text in panel.y_ticks:
        write(_LEFT - 6, y, text, "rm")
        draw.line((s * _LEFT, s * y, s * right, s * y), fill="#ddd", width=s)
    write((_LEFT + right) / 2, bottom + 36, "iteration", "ms")
    for name, line in panel.lines.items():
        _draw_line(draw, line, name)
    return image


def _draw_line(draw: ImageDraw.ImageDraw, points: Sequence[Point], name: str) -> None:
    """A polyline; a horizontal one of dashes for the best unary."""
    s, width = _PNG_SCALE, 2 * _PNG_SCALE
    if name != "best unary":
        draw.line([(s * x, s * y) for x, y in points], fill=_COLOURS[name], width=width)
        return
    (start, y), (end, _) = points
    while start < end:
        stop = min(start + _DASH, end)
        draw.line((s * start, s * y, s * stop, s * y), fill=_COLOURS[name], width=width)
        start += 2 * _DASH
