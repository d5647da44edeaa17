"""Files and folders: asked for in Qt's dialogs, shown in the file manager."""

from __future__ import annotations

from pathlib import Path

from qtpy.QtCore import QUrl
from qtpy.QtGui import QDesktopServices
from qtpy.QtWidgets import QFileDialog, QWidget

MODEL_FILTER = "Models (*.safetensors)"
LABEL_FILTER = "Label images (*.png)"


def ask_folder(parent: QWidget, title: str) -> str:
    """A folder that is there; nothing if the user changes their mind, as from all of these."""
    return str(QFileDialog.getExistingDirectory(parent, title))


def ask_model(parent: QWidget) -> str:
    """A model file to open."""
    return str(QFileDialog.getOpenFileName(parent, "Open a model", "", MODEL_FILTER)[0])


def ask_labels(parent: QWidget) -> list[str]:
    """Label images to open."""
    return [*map(str, QFileDialog.getOpenFileNames(parent, "Open labels", "", LABEL_FILTER)[0])]


def ask_where_to_save_model(parent: QWidget) -> str:
    """A model file to write."""
    return str(QFileDialog.getSaveFileName(parent, "Save the model", "", MODEL_FILTER)[0])


def open_folder(folder: Path) -> None:
    """Show a folder in the system's file manager."""
    QDesktopServices.openUrl(QUrl.fromLocalFile(str(folder)))
