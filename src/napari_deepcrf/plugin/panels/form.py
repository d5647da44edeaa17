"""Layout shared by the panels, so that they line up at a dock width of 300 pixels."""

from __future__ import annotations

from collections.abc import Sequence

from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QComboBox,
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QScrollArea,
    QSizePolicy,
    QWidget,
)

from napari_deepcrf.plugin.tooltips import TOOLTIPS

LABEL_WIDTH = 74


def form(parent: QWidget) -> QFormLayout:
    """Form with labels on the left that never wraps."""
    layout = QFormLayout(parent)
    layout.setContentsMargins(6, 6, 6, 6)
    layout.setHorizontalSpacing(8)
    layout.setVerticalSpacing(5)
    layout.setRowWrapPolicy(QFormLayout.RowWrapPolicy.DontWrapRows)
    layout.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
    layout.setLabelAlignment(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter)
    return layout


def add_row(
    layout: QFormLayout, text: str, widget: QWidget, tip: str, buddy: QWidget | None = None
) -> None:
    """Add a labelled control with its tooltip on both; the label is the ``buddy``'s, if given.

    Of several controls in a row, the buddy is the one that the label is about.
    """
    label = QLabel(text)
    label.setFixedWidth(LABEL_WIDTH)
    label.setToolTip(TOOLTIPS[tip])
    label.setBuddy(buddy or widget)
    for control in {widget, buddy or widget}:
        control.setToolTip(TOOLTIPS[tip])
    layout.addRow(label, widget)


def combo() -> QComboBox:
    """Combo box that shortens long entries instead of widening the dock."""
    box = QComboBox()
    box.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
    box.setMinimumContentsLength(8)
    box.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
    return box


def button(text: str, tip: str) -> QPushButton:
    """Push button with its tooltip."""
    push = QPushButton(text)
    push.setToolTip(TOOLTIPS[tip])
    return push


class Note(QLabel):
    """Text below a control, wrapped; it takes no room while there is none."""

    def __init__(self, tip: str) -> None:
        super().__init__()
        self.setWordWrap(True)
        self.setToolTip(TOOLTIPS[tip])
        self.hide()

    def setText(self, text: str | None) -> None:  # noqa: N802 - Qt's name
        """Show the text, or nothing."""
        super().setText(text)
        self.setVisible(bool(text))


def scrolled(panel: QWidget) -> QScrollArea:
    """A panel that scrolls where the dock is too low for it."""
    area = QScrollArea()
    area.setWidget(panel)
    area.setWidgetResizable(True)
    area.setFrameShape(QScrollArea.Shape.NoFrame)
    return area


def row(*widgets: QWidget, stretch: Sequence[int] = ()) -> QWidget:
    """Widgets side by side, sharing the width, equally unless ``stretch`` has their shares."""
    box = QWidget()
    layout = QHBoxLayout(box)
    layout.setContentsMargins(0, 0, 0, 0)
    layout.setSpacing(6)
    for number, widget in enumerate(widgets):
        layout.addWidget(widget, stretch=stretch[number] if stretch else 1)
    return box
