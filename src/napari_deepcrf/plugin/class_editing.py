"""The class list of the Annotate panel: taken from the model, then the user's to change."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject
from qtpy.QtWidgets import QColorDialog

from napari_deepcrf.plugin.palette import class_colour
from napari_deepcrf.plugin.qt import Signal
from napari_deepcrf.session.annotations import AnnotationClass

if TYPE_CHECKING:
    from napari_deepcrf.plugin.panels.annotate_panel import AnnotatePanel
    from napari_deepcrf.session.learning import Learning

START = ("background", "object")


class ClassEditing(QObject):
    """Keeps the panel's list and the session's in step.

    A newly chosen model brings its classes, but never while something is painted: the labels
    of scribbles are positions in the list.
    """

    refused = Signal(str)

    def __init__(
        self,
        learning: Learning,
        panel: AnnotatePanel,
        is_painted: Callable[[], bool],
        parent: QObject,
    ) -> None:
        super().__init__(parent)
        self._learning, self._panel, self._is_painted = learning, panel, is_painted
        panel.class_renamed.connect(lambda i, name: self._edit(i, name=name.strip()))
        panel.colour_wanted.connect(self._choose_colour)
        panel.class_added.connect(self.add)
        panel.new_list.connect(self._start_over)
        learning.classes.changed.connect(self._show)
        learning.session.model_changed.connect(self._on_model)
        self._on_model(None)

    def set_names(self, names: tuple[str, ...]) -> None:
        """Take over a list of classes with their fixed colours."""
        self.set_classes(
            AnnotationClass(name, class_colour(name, index)) for index, name in enumerate(names)
        )

    def set_classes(self, classes: Iterable[AnnotationClass]) -> None:
        """Take over a list of classes with colours of its own."""
        self._learning.classes.replace_all(classes)

    def add(self) -> None:
        """Append a class with a name and colour of its own, and pick it."""
        classes = self._learning.classes
        number = len(classes)
        free = (f"class {n}" for n in range(number, 2 * number + 1))
        name = next(name for name in free if name not in classes.names)
        self._panel.pick(classes.add(name, class_colour(name, number)))

    def _on_model(self, _model: object) -> None:
        names = self._learning.session.class_names
        if names and not self._is_painted():
            self.set_names(names)

    def _start_over(self) -> None:
        if self._is_painted():
            self.refused.emit("classes: clear the scribbles before starting a new list")
        else:
            self.set_names(START)

    def _edit(self, index: int, **changes: Any) -> None:
        try:
            self._learning.classes.edit(index, **changes)
        except ValueError as error:
            self.refused.emit(str(error))
            self._show()

    def _choose_colour(self, index: int) -> None:
        if index < 0:
            return
        colour = QColorDialog.getColor(parent=self._panel)
        if colour.isValid():
            self._edit(index, colour=(colour.red(), colour.green(), colour.blue()))

    def _show(self) -> None:
        self._panel.set_classes(list(self._learning.classes))
