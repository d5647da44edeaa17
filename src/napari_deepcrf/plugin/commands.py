"""What napari's menus and command palette can do with the dock."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from napari_deepcrf.plugin.dock import DeepCRFWidget


def open_dock() -> DeepCRFWidget:
    """The dock of the current viewer, opened if it is not.

    Raises
    ------
    RuntimeError
        If there is no viewer.
    """
    import napari

    viewer = napari.current_viewer()
    if viewer is None:
        raise RuntimeError("viewer: expected an open napari viewer, got none")
    _, dock = viewer.window.add_plugin_dock_widget("napari-deepcrf", "DeepCRF")
    return dock  # type: ignore[no-any-return]


def segment() -> None:
    """Segment the chosen image."""
    open_dock().segment_when_ready()


def annotate() -> None:
    """Paint classes on the chosen image."""
    open_dock().annotate()


def train() -> None:
    """Train on what was painted."""
    open_dock().train()


def cancel() -> None:
    """Stop what runs."""
    open_dock().cancel()


def back_to_learned() -> None:
    """Set the CRF to what the model was trained to."""
    open_dock().session.back_to_learned()


def segment_all_planes() -> None:
    """Segment every plane of the chosen stack."""
    open_dock().batching.segment_stack()


def save_model() -> None:
    """Save the model in use, with its CRF parameters."""
    open_dock().training.choose_file()
