"""The dock fits a narrow window, in both themes, and is worked by the keyboard alone."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from qtpy.QtCore import QPoint, Qt
from qtpy.QtWidgets import (
    QAbstractButton,
    QAbstractSpinBox,
    QApplication,
    QComboBox,
    QLineEdit,
    QSlider,
    QStyle,
    QStyleOptionComboBox,
    QWidget,
)

from napari_deepcrf.plugin.panels.status_panel import LONGEST, StatusPanel

CONTROLS = (QAbstractButton, QAbstractSpinBox, QComboBox, QLineEdit, QSlider)
WIDTH, HEIGHT = 300, 860


@pytest.fixture
def dock(open_app, photo, settle):
    app = open_app(photo, show=True)
    app.segment()
    app.dock.parent().setFixedWidth(WIDTH)
    app.viewer.window.resize(1100, HEIGHT)
    settle(0.2)
    return app.dock


def controls(dock):
    """Controls of the dock that can be seen or scrolled to."""
    return [
        widget
        for widget in dock.findChildren(QWidget)
        if isinstance(widget, CONTROLS)
        and widget.isVisible()
        and not widget.objectName().startswith("qt_")
        and not isinstance(widget.parent(), QAbstractSpinBox | QComboBox)
        and widget.focusPolicy() & Qt.FocusPolicy.TabFocus
    ]


def test_every_tab_fits_the_width(dock, settle):
    for index in range(dock.tabs.count()):
        dock.tabs.setCurrentIndex(index)
        settle(0.05)
        area = dock.tabs.widget(index)
        assert area.widget().minimumSizeHint().width() <= area.viewport().width()
        for widget in controls(dock):
            right = widget.mapTo(dock, QPoint(widget.width(), 0)).x()
            assert 0 < right <= dock.width(), (dock.tabs.tabText(index), widget)
            text = getattr(widget, "text", str)()
            if isinstance(widget, QAbstractButton) and text:
                needed = widget.fontMetrics().horizontalAdvance(text)
                assert needed <= widget.width(), text


def test_nine_sliders_need_no_scrolling(dock, settle):
    dock.tabs.setCurrentIndex(0)
    dock.crf_panel.independent.setChecked(True)
    settle(0.1)
    bar = dock.tabs.widget(0).verticalScrollBar()
    assert bar.maximum() == 0


def test_choices_of_the_crf_are_whole_beside_a_scroll_bar(dock, settle):
    dock.viewer.window.resize(1100, 640)
    dock.tabs.setCurrentIndex(0)
    settle(0.2)
    assert dock.tabs.widget(0).verticalScrollBar().isVisible()
    panel = dock.crf_panel
    for box in (panel.quality, panel.inference, panel.compatibility):
        option = QStyleOptionComboBox()
        option.initFrom(box)
        field = box.style().subControlRect(
            QStyle.ComplexControl.CC_ComboBox, option, QStyle.SubControl.SC_ComboBoxEditField, box
        )
        for index in range(box.count()):
            text = box.itemText(index)
            assert box.fontMetrics().horizontalAdvance(text) <= field.width(), text


def test_tab_goes_through_the_controls_from_top_to_bottom(dock, qtbot, settle):
    window = dock.window()
    window.activateWindow()
    qtbot.waitUntil(lambda: QApplication.activeWindow() is window)
    for index in range(dock.tabs.count()):
        dock.tabs.setCurrentIndex(index)
        settle(0.05)
        shown, order = [widget for widget in controls(dock) if widget.isEnabled()], []
        dock.source_panel.image.setFocus()
        while (widget := QApplication.focusWidget()) not in order:
            order.append(widget)
            qtbot.keyClick(widget, Qt.Key.Key_Tab)
        order = [widget for widget in order if widget in shown]
        assert set(order) == set(shown)
        rows = [w.mapTo(dock, QPoint(0, w.height() // 2)).y() for w in order]
        assert all(b > a - 12 for a, b in itertools.pairwise(rows)), rows


def test_every_control_says_what_it_does(dock, settle):
    for index in range(dock.tabs.count()):
        dock.tabs.setCurrentIndex(index)
        settle(0.02)
        assert [w for w in controls(dock) if not w.toolTip()] == []


def test_the_keys_are_printed_on_what_they_press(dock):
    assert "Shift+D" in dock.source_panel.segment.text()
    assert "Shift+A" in dock.annotate_panel.annotate.text()
    assert "Shift+S" in dock.train_panel.train.text()
    icons = [dock.annotate_panel.classes.item(k).icon() for k in range(2)]
    images = [icon.pixmap(16, 16).toImage() for icon in icons]
    assert images[0] != images[1]


def test_both_themes_colour_the_plots(dock):
    backgrounds = set()
    for theme in ("light", "dark"):
        dock.viewer.theme = theme
        plot = dock.crf_panel.divergence._plot
        backgrounds.add(plot.backgroundBrush().color().name())
    assert len(backgrounds) == 2


def test_curves_of_the_same_steps_lie_over_each_other(dock, settle):
    dock.show_tab("Train")
    panel = dock.train_panel
    numbered = panel.iou._plot.getAxis("bottom").style
    assert not numbered["showValues"]  # of nothing
    panel.start_curves()
    panel.add_stage("unary")
    for step in range(1, 9):
        panel.add_loss(step, 1 / step)
    panel.add_iou("unary", 4, 0.5)
    settle(0.05)
    assert numbered["showValues"]
    ranges = [plot._plot.getViewBox().viewRange()[0] for plot in (panel.loss, panel.iou)]
    np.testing.assert_allclose(*ranges)
    assert ranges[0][0] <= 1 < 8 <= ranges[0][1]
    panel.start_curves()
    assert not numbered["showValues"]


def test_whether_to_keep_a_model_is_asked_without_scrolling(dock, settle):
    dock.show_tab("Train")
    panel = dock.train_panel
    panel.show_verdict("Keep the trained model, or revert to the one before?")
    panel.show_changed(0.02, "photo")
    settle(0.1)
    assert not panel.progress.isVisible()  # of what is over
    viewport = dock.tabs.currentWidget().viewport()
    for button in (panel.keep, panel.revert, *panel.views.values()):
        assert 0 < button.mapTo(viewport, QPoint(0, button.height())).y() <= viewport.height()


def test_a_long_error_is_shortened_and_told_in_whole_by_the_tooltip(qtbot):
    panel = StatusPanel()
    qtbot.addWidget(panel)
    error = "folder: 900 problems: " + "; ".join(f"image {n}: no labels" for n in range(900))
    panel.show_error(error)
    assert len(panel.text.text()) <= LONGEST
    assert panel.text.text().startswith("folder: 900 problems")
    assert panel.text.toolTip() == error
    panel.show_error("short")
    assert panel.text.toolTip() == ""


def test_learned_values_are_marked_on_the_sliders(dock):
    learned = dock.session.learned_settings.parameters
    slider = dock.crf_panel.sliders["w_bilateral"][0]
    slider.slider.setValue(900)
    assert slider.slider.mark == slider._position(learned.w_bilateral)
    pixels = slider.slider.grab().toImage()
    slider.set_mark(None)
    assert slider.slider.grab().toImage() != pixels


def test_what_is_kept_of_a_result_can_be_less(open_app, photo):
    app = open_app(photo)
    panel = app.dock.source_panel
    most = app.dock.session.memory_needed()
    assert panel.memory.text() == "1 MB"
    app.segment()
    whole = app.dock.session.result
    view = app.dock.view_panel.classes
    shown = whole.class_names[int(whole.labels.max())]
    view.setCurrentIndex(whole.class_names.index(shown))
    view.activated.emit(view.currentIndex())
    panel.keep.setCurrentText("of both only")
    result = app.after(lambda: panel.keep.activated.emit(panel.keep.currentIndex()))
    assert app.dock.session.fresh
    assert app.dock.session.memory_needed() < most
    assert panel.memory.text() == "≤ 1 MB"
    assert result.classes == tuple(np.unique(whole.history))
    marginals = app.layer("marginals")
    assert marginals.data.shape == (len(result.classes), 1, 61, 83)
    assert marginals.translate[1] == result.iterations
    names = [view.itemText(k) for k in range(len(result.classes))]
    assert tuple(names) == result.kept_names
    assert view.currentText() == shown  # wherever it is among those kept
    np.testing.assert_array_equal(result.labels, whole.labels)
    app.viewer.cursor.position = (0, 3, 30, 40)
    label = whole.labels[30, 40]
    assert app.dock.readout.text().endswith(f"{whole.marginals[label, -1, 30, 40]:.2f}")
    app.viewer.cursor.position = (0, 1, 30, 40)
    assert app.dock.readout.text() == whole.class_names[whole.history[1, 30, 40]]
    panel.keep.setCurrentText("all marginals")
    app.after(lambda: panel.keep.activated.emit(panel.keep.currentIndex()))
    assert view.currentText() == shown
