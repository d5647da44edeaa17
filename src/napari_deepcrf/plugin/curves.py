"""Small plots in the colours of napari's theme."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyqtgraph as pg
from napari.utils.theme import get_theme
from qtpy.QtCore import QSize, Qt
from qtpy.QtWidgets import QVBoxLayout, QWidget

AXIS_HEIGHT, TICKS_HEIGHT = 34, 20
LINE_COLOURS = ("#3fa7d6", "#f79d5c", "#7bc47f")


class CurvePlot(QWidget):
    """One set of axes with named curves; no menus, no mouse."""

    def __init__(
        self,
        x_label: str,
        y_label: str,
        curves: Sequence[str],
        *,
        symbols: bool = False,
        height: int = 120,
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(parent)
        self._plot = pg.PlotWidget(enableMenu=False)
        self._plot.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self._plot.setMouseEnabled(x=False, y=False)
        self._plot.hideButtons()
        self._plot.setMinimumHeight(height)
        self._plot.setMaximumHeight(round(1.8 * height))
        self._plot.setMinimumWidth(100)
        if x_label:
            self._plot.setLabel("bottom", x_label)
        self._plot.setLabel("left", y_label)
        self._plot.getAxis("left").enableAutoSIPrefix(False)
        self._plot.getAxis("bottom").enableAutoSIPrefix(False)
        self._plot.getAxis("left").setWidth(52)
        self._plot.getAxis("bottom").setStyle(maxTickLevel=0)
        self._plot.getAxis("bottom").setHeight(AXIS_HEIGHT if x_label else TICKS_HEIGHT)
        # pyqtgraph lets an axis's label stick out by a few pixels
        self._plot.getPlotItem().layout.setContentsMargins(0, 4, 6, 6 if x_label else 0)
        self._curves: dict[str, pg.PlotDataItem] = {}
        for name, colour in zip(curves, LINE_COLOURS, strict=False):
            style = {"symbol": "o", "symbolSize": 5, "symbolBrush": colour, "symbolPen": None}
            self._curves[name] = self._plot.plot(
                name=name, pen=pg.mkPen(colour, width=2), **(style if symbols else {})
            )
        self._marks: list[pg.InfiniteLine] = []
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._plot)
        self._show_numbers()

    def share_steps(self, other: CurvePlot) -> None:
        """Show the same part of the x axis as another plot, above or below this one."""
        self._plot.setXLink(other._plot)

    def set_data(self, name: str, x: Sequence[float], y: Sequence[float]) -> None:
        """Replace the points of one curve."""
        self._curves[name].setData(np.asarray(x, dtype=float), np.asarray(y, dtype=float))
        self._show_numbers()

    def mark(self, x: float) -> None:
        """Draw an upright line, for example where a training stage ends."""
        line = pg.InfiniteLine(x, pen=pg.mkPen("#888888", style=Qt.PenStyle.DashLine))
        self._plot.addItem(line)
        self._marks.append(line)

    def level(self, name: str, y: float) -> None:
        """Draw a level line in a curve's colour, for example the best of an earlier stage."""
        colour = self._curves[name].opts["pen"].color()
        line = pg.InfiniteLine(y, angle=0, pen=pg.mkPen(colour, style=Qt.PenStyle.DashLine))
        self._plot.addItem(line)
        self._marks.append(line)

    def clear(self) -> None:
        """Remove all points and lines."""
        for curve in self._curves.values():
            curve.setData([], [])
        for line in self._marks:
            self._plot.removeItem(line)
        self._marks.clear()
        self._show_numbers()

    def _show_numbers(self) -> None:
        """Number the axes once there is something to measure by them."""
        drawn = any(curve.xData is not None and len(curve.xData) for curve in self._curves.values())
        for side in ("left", "bottom"):
            self._plot.getAxis(side).setStyle(showValues=drawn)

    def sizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        """Narrow: a plot takes the width that the dock has, it does not ask for one."""
        return QSize(200, self._plot.minimumHeight())

    def apply_theme(self, name: str) -> None:
        """Take background and text colours from a napari theme."""
        theme = get_theme(name)
        text = theme.text.as_hex()
        self._plot.setBackground(theme.background.as_hex())
        for side in ("left", "bottom"):
            axis = self._plot.getAxis(side)
            axis.setPen(text)
            axis.setTextPen(text)
        if len(self._curves) > 1:
            self._plot.setTitle(self._legend(), color=text, size="8pt")

    def _legend(self) -> str:
        """Names behind dots in their colours, above the axes: within them they hide curves."""
        return "&nbsp; ".join(
            f'<span style="color: {curve.opts["pen"].color().name()}">●</span> {name}'
            for name, curve in self._curves.items()
        )
