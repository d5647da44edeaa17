"""Key bindings on the viewer, given back when the dock closes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari.viewer import Viewer


def bind_keys(
    viewer: Viewer, actions: Mapping[str, Callable[[], object]], cleanup: ExitStack
) -> None:
    """Bind keys such as ``Shift-D``; what they were bound to before comes back on cleanup."""
    for key, action in actions.items():
        before = viewer.bind_key(key, _handler(action), overwrite=True)
        cleanup.callback(viewer.bind_key, key, before, overwrite=True)


def _handler(action: Callable[[], object]) -> Callable[[Any], None]:
    def handle(_viewer: Any) -> None:
        action()

    return handle
