"""A class's colour as an icon."""

from __future__ import annotations

from qtpy.QtCore import QSize, Qt
from qtpy.QtGui import QColor, QIcon, QPainter, QPixmap

SWATCH, KEYED_SWATCH = 12, 16
DARK = 140
"""Grey level from which on black text is easier to read than white."""


def swatch(colour: tuple[int, int, int], key: str = "") -> QIcon:
    """Small square of a class's colour, with the key that picks the class printed on it."""
    size = KEYED_SWATCH if key else SWATCH
    pixmap = QPixmap(QSize(size, size))
    pixmap.fill(QColor(*colour))
    if key:
        painter = QPainter(pixmap)
        red, green, blue = colour
        dark = 0.3 * red + 0.59 * green + 0.11 * blue < DARK
        painter.setPen(QColor("white" if dark else "black"))
        painter.drawText(pixmap.rect(), Qt.AlignmentFlag.AlignCenter, key)
        painter.end()
    return QIcon(pixmap)
