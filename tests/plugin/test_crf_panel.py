"""The CRF panel alone, without a viewer."""

from __future__ import annotations

import pytest

from napari_deepcrf.crf import CRFParameters
from napari_deepcrf.plugin.log_slider import STEPS, LogSlider
from napari_deepcrf.plugin.panels.crf_panel import SLIDERS, CRFPanel
from napari_deepcrf.plugin.tooltips import TOOLTIPS
from napari_deepcrf.session import CRFSettings

PARAMETERS = CRFParameters(theta_gamma=2.5, theta_alpha=60.0, theta_beta=10.0)


@pytest.fixture
def panel(qtbot):
    panel = CRFPanel()
    qtbot.addWidget(panel)
    panel.show_settings(CRFSettings(parameters=PARAMETERS), PARAMETERS)
    return panel


def changes_of(panel):
    changes = []
    panel.changed.connect(changes.append)
    return changes


def test_showing_settings_emits_nothing(panel):
    changes = changes_of(panel)
    panel.show_settings(CRFSettings(parameters=CRFParameters(), iterations=9), PARAMETERS)
    assert changes == []
    assert panel.iterations.value() == 9
    assert panel.learned.isEnabled()


def test_a_slider_emits_its_own_value(panel):
    changes = changes_of(panel)
    panel.sliders["theta_alpha"][0].spin.setValue(33.0)
    panel.sliders["w_bilateral"][0].slider.setValue(STEPS)
    assert changes == [{"theta_alpha": 33.0}, {"w_bilateral": SLIDERS["w_bilateral"][2]}]


def test_all_nine_numbers_can_be_set_apart(panel):
    changes = changes_of(panel)
    panel.independent.setChecked(True)
    panel.sliders["theta_gamma"][1].spin.setValue(7.0)
    panel.sliders["theta_beta"][2].spin.setValue(20.0)
    assert changes == [{"theta_gamma": (2.5, 7.0)}, {"theta_beta": (10.0, 10.0, 20.0)}]
    split = CRFSettings(parameters=CRFParameters(theta_gamma=(2.5, 7.0)))
    panel.show_settings(split, PARAMETERS)
    panel.independent.setChecked(False)
    assert changes[-1] == {"theta_gamma": 2.5}


def test_split_parameters_show_themselves(panel):
    split = CRFSettings(parameters=CRFParameters(theta_beta=(5.0, 6.0, 7.0)))
    panel.show_settings(split, None)
    assert panel.independent.isChecked()
    assert [s.value() for s in panel.sliders["theta_beta"]] == [5.0, 6.0, 7.0]
    assert not panel.learned.isEnabled()


def test_a_log_slider_moves_in_ratios_and_keeps_what_is_typed(qtbot):
    slider = LogSlider(0.1, 1000.0)
    qtbot.addWidget(slider)
    slider.slider.setValue(STEPS // 2)
    assert slider.value() == pytest.approx(10.0)
    slider.set_value(123.45)
    assert slider.value() == 123.45
    slider.set_value(5000.0)
    assert slider.value() == 1000.0
    assert slider.slider.value() == STEPS


def test_a_number_has_room_in_naparis_theme(qtbot):
    from napari.qt import get_stylesheet

    slider = LogSlider(0.1, 100)
    qtbot.addWidget(slider)
    slider.setStyleSheet(get_stylesheet("dark"))
    slider.show()
    text = slider.spin.fontMetrics().horizontalAdvance("100.00")
    assert slider.spin.lineEdit().width() > text


def test_every_control_has_its_tooltip(panel):
    for name, sliders in panel.sliders.items():
        assert {s.slider.toolTip() for s in sliders} == {TOOLTIPS[name]}
    for name in ("iterations", "quality", "inference", "compatibility", "learned", "independent"):
        assert getattr(panel, name).toolTip() == TOOLTIPS[name]
