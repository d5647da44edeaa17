"""A slider whose steps are ratios, with a spin box beside it."""

from __future__ import annotations

import math

from qtpy.QtCore import QRect, QSignalBlocker, Qt
from qtpy.QtGui import QPainter, QPaintEvent
from qtpy.QtWidgets import QDoubleSpinBox, QHBoxLayout, QSlider, QStyle, QWidget

from napari_deepcrf.plugin.qt import Signal

STEPS = 1000
HANDLE = 16
"""Width of the handle in napari's themes."""
NO_BUTTONS = (
    "QDoubleSpinBox::up-button, QDoubleSpinBox::down-button { width: 0px; }"
    "QDoubleSpinBox::up-arrow, QDoubleSpinBox::down-arrow { width: 0px; image: none; }"
)
"""Qt 6.11.3 leaves a styled box whose ButtonSymbols are NoButtons one pixel for its number."""


class MarkedSlider(QSlider):
    """A slider with a notch at one of its positions."""

    def __init__(self) -> None:
        super().__init__(Qt.Orientation.Horizontal)
        self.mark: int | None = None

    def set_mark(self, position: int | None) -> None:
        """Put the notch elsewhere, or take it away."""
        if position != self.mark:
            self.mark = position
            self.update()

    def paintEvent(self, event: QPaintEvent | None) -> None:  # noqa: N802 - Qt's name
        """Draw the slider, and the notch below its groove."""
        super().paintEvent(event)
        if self.mark is None:
            return
        room = self.width() - HANDLE
        left = QStyle.sliderPositionFromValue(self.minimum(), self.maximum(), self.mark, room)
        painter = QPainter(self)
        notch = QRect(left + HANDLE // 2 - 1, self.height() // 2 + 5, 3, 5)
        painter.fillRect(notch, self.palette().text())
        painter.end()


class LogSlider(QWidget):
    """A positive number between two bounds, with a notch at the learned one.

    The slider is only a coarse hand: what is typed into the spin box is kept exactly, and
    ``value_changed`` carries the spin box's value.
    """

    value_changed = Signal(float)

    def __init__(
        self, low: float, high: float, decimals: int = 2, parent: QWidget | None = None
    ) -> None:
        super().__init__(parent)
        self._low, self._high = low, high
        self.slider = MarkedSlider()
        self.slider.setRange(0, STEPS)
        self.slider.setPageStep(STEPS // 20)
        self.slider.setMinimumWidth(60)
        self.spin = QDoubleSpinBox()
        self.spin.setDecimals(decimals)
        self.spin.setRange(low, high)
        self.spin.setStepType(QDoubleSpinBox.StepType.AdaptiveDecimalStepType)
        self.spin.setKeyboardTracking(False)
        self.spin.setStyleSheet(NO_BUTTONS)
        self.spin.setAlignment(Qt.AlignmentFlag.AlignRight)
        self.spin.setFixedWidth(64)
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(6)
        row.addWidget(self.slider, stretch=1)
        row.addWidget(self.spin)
        self.slider.valueChanged.connect(self._on_slider)
        self.spin.valueChanged.connect(self._on_spin)

    def value(self) -> float:
        """The number shown."""
        return float(self.spin.value())

    def set_value(self, value: float) -> None:
        """Show a number, clipped to the bounds, without a signal."""
        with QSignalBlocker(self.spin), QSignalBlocker(self.slider):
            self.spin.setValue(value)
            self.slider.setValue(self._position(self.spin.value()))

    def set_mark(self, value: float | None) -> None:
        """Mark a value, such as the learned one."""
        self.slider.set_mark(None if value is None else self._position(value))

    def setToolTip(self, text: str | None) -> None:  # noqa: N802 - Qt's name
        """Show the text on slider and spin box alike."""
        for widget in (self.slider, self.spin):
            widget.setToolTip(text)
        super().setToolTip(text)

    def _position(self, value: float) -> int:
        ratio = math.log(value / self._low) / math.log(self._high / self._low)
        return round(STEPS * min(max(ratio, 0.0), 1.0))

    def _on_slider(self, position: int) -> None:
        value = self._low * (self._high / self._low) ** (position / STEPS)
        with QSignalBlocker(self.spin):
            self.spin.setValue(value)
        self.value_changed.emit(self.value())

    def _on_spin(self, value: float) -> None:
        with QSignalBlocker(self.slider):
            self.slider.setValue(self._position(value))
        self.value_changed.emit(value)
