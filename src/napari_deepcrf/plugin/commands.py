"""What napari's menus and command palette can do with the dock."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_deepcrf.plugin import files, folders

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


def pause() -> None:
    """Hold the running training, or let it go on."""
    open_dock().training.pause()


def stop_keep_best() -> None:
    """End the running training and keep its best state."""
    open_dock().training.stop()


def keep() -> None:
    """Keep the trained model."""
    open_dock().training.settle(keep=True)


def revert() -> None:
    """Go back to the model from before the training."""
    open_dock().training.settle(keep=False)


def live() -> None:
    """Follow every stroke from now on, or no more."""
    open_dock().annotate_panel.live.toggle()


def make_objects() -> None:
    """Number the regions of the class chosen in the Tools tab."""
    dock = open_dock()
    dock.show_tab("Tools")
    dock.tools.make_objects(*dock.tools_panel.objects_wanted())


def segment_folder() -> None:
    """Show the Batch tab, where a folder is chosen."""
    open_dock().show_tab("Batch")


def open_model() -> None:
    """Ask for a model's file, and use it."""
    open_dock().model_choice.open()


def open_labels() -> None:
    """Ask for label PNGs, and open them as labels layers in VOC's colours."""
    from napari.layers import Layer

    dock = open_dock()
    try:
        layers = files.read_label_layers(folders.ask_labels(dock))
    except ValueError as error:
        dock.status_panel.show_error(str(error))
        return
    for layer in layers:
        dock.viewer.add_layer(Layer.create(*layer))


def back_to_learned() -> None:
    """Set the CRF to what the model was trained to."""
    open_dock().session.back_to_learned()


def segment_all_planes() -> None:
    """Segment every plane of the chosen stack."""
    open_dock().batching.segment_stack()


def segment_in_tiles() -> None:
    """Label the chosen image tile by tile, whatever its size."""
    dock = open_dock()
    dock.show_tab("Batch")
    dock.tiling.segment()


def save_model() -> None:
    """Save the model in use, with its CRF parameters."""
    open_dock().training.choose_file()
