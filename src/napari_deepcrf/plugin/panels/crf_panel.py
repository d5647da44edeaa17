"""The CRF's nine numbers as sliders, how mean field is run, and whether it converged."""

from __future__ import annotations

from collections.abc import Sequence

from qtpy.QtCore import QSignalBlocker
from qtpy.QtWidgets import QCheckBox, QComboBox, QLabel, QSpinBox, QVBoxLayout, QWidget

from napari_deepcrf.crf import CRFParameters
from napari_deepcrf.plugin.curves import CurvePlot
from napari_deepcrf.plugin.log_slider import LogSlider
from napari_deepcrf.plugin.panels.form import add_row, button, combo, form, row
from napari_deepcrf.plugin.qt import Signal
from napari_deepcrf.plugin.tooltips import TOOLTIPS
from napari_deepcrf.session.settings import MAX_ITERATIONS, CRFSettings

# name: (text, lowest, highest); wide enough for learned values, narrow enough to be felt
SLIDERS: dict[str, tuple[str, float, float]] = {
    "w_spatial": ("w₁ smooth", 0.01, 100.0),
    "theta_gamma": ("θγ px", 0.3, 100.0),
    "w_bilateral": ("w₂ colour", 0.01, 100.0),
    "theta_alpha": ("θα px", 1.0, 500.0),
    "theta_beta": ("θβ grey", 1.0, 255.0),
}
AXES = {"theta_gamma": ("y", "x"), "theta_alpha": ("y", "x"), "theta_beta": ("1", "2", "3")}


class CRFPanel(QWidget):
    """Shows a `CRFSettings` and emits the changes that the user asks for."""

    changed = Signal(dict)  # keyword arguments of CRFSettings.with_
    back_to_learned = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._channels = 3
        self._settings: CRFSettings | None = None
        self.sliders: dict[str, list[LogSlider]] = {}
        self._split_rows: list[tuple[QWidget | None, LogSlider]] = []
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        outer.setSpacing(0)
        box = QWidget()
        self._form = form(box)
        self._form.setVerticalSpacing(3)
        outer.addWidget(box)
        for name in SLIDERS:
            self._add_sliders(name)
        self.independent = QCheckBox("per axis, channel")
        self.independent.setToolTip(TOOLTIPS["independent"])
        self.learned = button("Back to learned", "learned")
        self._form.addRow(row(self.independent, self.learned, stretch=(0, 1)))
        self.iterations = QSpinBox()
        self.iterations.setRange(1, MAX_ITERATIONS)
        self.iterations.setKeyboardTracking(False)
        self.quality = _choices("fast", "accurate", "exact")
        self.inference = _choices("parallel", "convergent")
        self.compatibility = _choices("learned", "potts")
        updates = row(self.iterations, self.compatibility)
        self._form.addRow(row(self.quality, self.inference))
        add_row(self._form, "Updates", updates, "iterations", self.iterations)
        for name in ("quality", "inference", "iterations", "compatibility"):
            getattr(self, name).setToolTip(TOOLTIPS[name])
        self.divergence = CurvePlot("", "KL/px", ("KL",), symbols=True, height=58)
        self.changes = CurvePlot("update", "% new", ("changed",), symbols=True, height=86)
        self.changes.share_steps(self.divergence)
        for plot in (self.divergence, self.changes):
            plot.setToolTip(TOOLTIPS["curve"])
            outer.addWidget(plot, stretch=1)
        self._connect()
        self._show_split(False)

    def show_settings(self, settings: CRFSettings, learned: CRFParameters | None) -> None:
        """Show the values without emitting; mark those that differ from the learned ones."""
        self._settings = settings
        parameters = settings.parameters
        split = any(isinstance(getattr(parameters, name), tuple) for name in AXES)
        with QSignalBlocker(self.independent):
            self.independent.setChecked(split or self.independent.isChecked())
        self._show_split(self.independent.isChecked())
        for name, sliders in self.sliders.items():
            value = getattr(parameters, name)
            values = value if isinstance(value, tuple) else (value,) * len(sliders)
            for slider, number in zip(sliders, values, strict=False):
                if slider.value() != number:
                    slider.set_value(number)
        self._mark(learned)
        with (
            QSignalBlocker(self.iterations),
            QSignalBlocker(self.quality),
            QSignalBlocker(self.inference),
            QSignalBlocker(self.compatibility),
        ):
            self.compatibility.setCurrentText(settings.compatibility)
            self.iterations.setValue(settings.iterations)
            self.quality.setCurrentText(settings.quality)
            self.inference.setCurrentText(settings.inference)
        self.learned.setEnabled(learned is not None and learned != parameters)

    def is_sliding(self) -> bool:
        """Whether a slider is held by the mouse now."""
        return any(s.slider.isSliderDown() for group in self.sliders.values() for s in group)

    def set_channels(self, channels: int) -> None:
        """Number of the image's colour channels: up to three have widths of their own."""
        channels = channels if channels <= len(AXES["theta_beta"]) else 1
        if channels != self._channels:
            self._channels = channels
            self._show_split(self.independent.isChecked())

    def show_divergence(self, values: Sequence[float]) -> None:
        """KL per pixel after updates 0…T, drawn above its last value: its zero is unknown."""
        above = [value - values[-1] for value in values]
        self.divergence.set_data("KL", range(len(values)), above)

    def show_changes(self, changed: Sequence[float]) -> None:
        """Share of labels that changed in updates 1…T."""
        self.changes.set_data("changed", range(1, len(changed) + 1), [100 * v for v in changed])

    def apply_theme(self, name: str) -> None:
        """Recolour the plots."""
        self.divergence.apply_theme(name)
        self.changes.apply_theme(name)

    def _mark(self, learned: CRFParameters | None) -> None:
        for name, sliders in self.sliders.items():
            value = None if learned is None else getattr(learned, name)
            values = value if isinstance(value, tuple) else (value,) * len(sliders)
            for slider, number in zip(sliders, values, strict=False):
                slider.set_mark(number)

    def _add_sliders(self, name: str) -> None:
        text, low, high = SLIDERS[name]
        sliders = [LogSlider(low, high)]
        add_row(self._form, text, sliders[0], name, sliders[0].spin)
        for axis in AXES.get(name, ())[1:]:
            slider = LogSlider(low, high)
            add_row(self._form, f"{text.split()[0]}, {axis}", slider, name, slider.spin)
            self._split_rows.append((self._form.labelForField(slider), slider))
            sliders.append(slider)
        for slider in sliders:
            slider.value_changed.connect(lambda _value, n=name: self._emit(n))
        self.sliders[name] = sliders

    def _connect(self) -> None:
        self.iterations.valueChanged.connect(lambda v: self.changed.emit({"iterations": v}))
        for name in ("quality", "inference", "compatibility"):
            box: QComboBox = getattr(self, name)
            box.activated.connect(lambda _i, n=name, b=box: self.changed.emit({n: b.currentText()}))
        self.independent.toggled.connect(self._on_independent)
        self.learned.clicked.connect(self.back_to_learned)

    def _emit(self, name: str) -> None:
        sliders = self.sliders[name]
        if name in AXES and self.independent.isChecked():
            count = self._channels if name == "theta_beta" else 2
            values = tuple(slider.value() for slider in sliders[:count])
            self.changed.emit({name: values if count > 1 else values[0]})
        else:
            self.changed.emit({name: sliders[0].value()})

    def _on_independent(self, on: bool) -> None:
        self._show_split(on)
        if on or self._settings is None:
            return
        joined = {}
        for name in AXES:
            value = getattr(self._settings.parameters, name)
            if isinstance(value, tuple):
                joined[name] = value[0]
        if joined:
            self.changed.emit(joined)

    def _show_split(self, on: bool) -> None:
        for name, axes in AXES.items():
            label = self._form.labelForField(self.sliders[name][0])
            text = SLIDERS[name][0]
            if isinstance(label, QLabel):
                label.setText(f"{text.split()[0]}, {axes[0]}" if on else text)
        for label, slider in self._split_rows:
            colour = slider in self.sliders["theta_beta"]
            position = self.sliders["theta_beta"].index(slider) if colour else 0
            shown = on and (not colour or position < self._channels)
            if label is not None:
                label.setVisible(shown)
            slider.setVisible(shown)


def _choices(*texts: str) -> QComboBox:
    box = combo()
    # two of them share a row: napari's own padding would cut a letter off beside a scroll bar
    box.setStyleSheet("QComboBox { padding: 3px 2px 3px 6px; }")
    box.setMinimumContentsLength(1)
    box.addItems(list(texts))
    return box
