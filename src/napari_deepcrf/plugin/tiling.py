"""The Batch tab's use case for one image that the memory does not hold: labels in tiles."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject

from napari_deepcrf.plugin import folders
from napari_deepcrf.plugin.batch_marks import BatchMarks, MadeFrom
from napari_deepcrf.plugin.context import Context, Coordinator
from napari_deepcrf.plugin.geometry import Placement
from napari_deepcrf.plugin.images import finest
from napari_deepcrf.plugin.label_layers import label_layer, show_classes
from napari_deepcrf.plugin.stack_reader import open_stack
from napari_deepcrf.session import Progress
from napari_deepcrf.session.tiles import (
    TilesOpened,
    TilesWritten,
    memory_problem,
    segment_in_tiles,
)

if TYPE_CHECKING:
    from napari.layers import Image, Labels

    from napari_deepcrf.plugin.images import Plane
    from napari_deepcrf.plugin.panels.tiles_panel import TilesPanel
    from napari_deepcrf.session import Job

HOME_FOLDER = Path.home() / "napari-deepcrf labels"
"""Where labels go of an image that is in no folder, or in one that cannot be written to."""


@dataclass(eq=False)
class _Run:
    """The job under way, or the last one, and the layer that shows what it writes."""

    job: Job
    made_from: MadeFrom
    class_names: tuple[str, ...]
    layer: Labels | None = None

    @property
    def image(self) -> Image:
        """What is worked on."""
        return self.made_from.image


class Tiling(Coordinator):
    """Runs the chosen image through tiles in the background; the labels show as they come."""

    def __init__(self, context: Context, panel: TilesPanel, parent: QObject) -> None:
        super().__init__(context, parent)
        self._panel = panel
        self._marks = BatchMarks(context, self)
        self._run: _Run | None = None
        panel.run_clicked.connect(self.segment)
        panel.out_wanted.connect(self._choose_out)
        self.session.image_changed.connect(self._show_image)
        self.follow(self._on_removed, self.viewer.layers.events.removed)
        self.follow_jobs("tiles", self._on_job)
        self._show_image()

    def offer(self) -> bool:
        """Say so where the chosen image needs tiles and can be done in them; else False."""
        problem = memory_problem(self.session)
        if not problem or self.session.scores is not None or not self._panel.run.isEnabled():
            return False
        self.refused.emit(f"{problem}: press “{self._panel.run.text()}” for the labels alone")
        return True

    def segment(self) -> None:
        """Label the chosen image tile by tile, or go on where an earlier run stopped."""
        self.start(self._job)

    def receive(self, event: Any) -> None:
        """Show the labels, and more of them as they are written."""
        run = self._run
        if isinstance(event, Progress):
            self._panel.note.setText(event.text)
        elif isinstance(event, TilesOpened) and run is not None:
            self._open(run, event)
        elif isinstance(event, TilesWritten) and run is not None and run.layer is not None:
            run.layer.refresh()

    def _job(self) -> Job:
        choice, model = self.context.choice, self.session.model
        image = choice.layer
        if image is None or choice.plane is None:
            raise ValueError("image: expected one to segment, got none")
        if not _is_single(choice.plane):
            raise ValueError("image: expected a single plane for tiles, got a stack")
        if model is None:
            raise ValueError("model: expected one to be loaded, got none")
        plain = image.ndim == 2
        steps = partial(
            segment_in_tiles,
            partial(_itself, finest(image)) if plain else partial(_only_plane, open_stack(image)),
            image.name,
            Path(self._panel.out.text().strip() or _folder_of(image)).expanduser(),
            model,
            self.session.device,
            self.session.settings,
            self._panel.view.value(),
        )
        job = self.session.job("tiles", f"Segmenting {image.name} in tiles", steps)
        self._let_go()
        self._run = _Run(job, self._marks.made_from(image, model), tuple(model.class_names))
        image.events.data.connect(self._stop)
        return job

    def _open(self, run: _Run, event: TilesOpened) -> None:
        layer = self._layer_of(event.place)
        levels = list(event.levels) if len(event.levels) > 1 else event.levels[0]
        if layer is None:
            placement = _in_plane(Placement.of(run.image))
            title = f"{run.image.name} [labels in tiles]"
            layer = label_layer(levels, placement, name=title, role="tiles", opacity=0.6)
            layer.metadata["deepcrf place"] = str(event.place)
            self.add_layer(layer)
        else:
            layer.data = levels
        show_classes(layer, run.class_names, self.context.colours(run.class_names))
        layer.editable = False  # what is painted would not be written to the disk
        run.layer = layer
        self._marks.watch(layer, run.made_from)

    def _layer_of(self, place: Path) -> Labels | None:
        """The layer of a run into this place, if it is still there."""
        layers = self.viewer.layers
        return next((x for x in layers if x.metadata.get("deepcrf place") == str(place)), None)

    def _on_job(self, job: Job, running: bool) -> None:
        self._panel.show_running(running)
        if not running and self._run is not None and self._run.job is job:
            self._let_go()

    def _on_removed(self, event: Any) -> None:
        run = self._run
        if run is not None and (event.value is run.image or event.value is run.layer):
            self._stop()

    def _stop(self, _event: object = None) -> None:
        """What is worked on is not there any more."""
        if self._run is not None:
            self.session.cancel(self._run.job)
            self.context.runner.cancel("tiles")

    def _let_go(self) -> None:
        if self._run is not None:
            self._run.image.events.data.disconnect(self._stop)
            self._run = None

    def _choose_out(self) -> None:
        out = folders.ask_folder(self._panel, "Where the labels go")
        if out:
            self._panel.choose_out(out)

    def _show_image(self, _event: object = None) -> None:
        image, plane = self.context.choice.layer, self.context.choice.plane
        single = plane is not None and _is_single(plane)
        out = "" if image is None else str(_folder_of(image))
        self._panel.show_image("" if image is None else image.name, out, single=single)


def _is_single(plane: Plane) -> bool:
    return all(n == 1 for n in plane.stack_shape)


def _itself(image: Any) -> Any:
    return image


def _only_plane(open_planes: Any) -> Any:
    """(H, W, C) of a stack with a single plane."""
    planes = open_planes()
    return planes[(0,) * (planes.ndim - 3)]


def _folder_of(image: Image) -> Path:
    """The folder that an image was opened from, if one can write there."""
    if image.source.path:
        path = Path(image.source.path).absolute()
        stored = [part for part in (path, *path.parents) if part.suffix.lower() == ".zarr"]
        folder = (stored[-1] if stored else path).parent
        if folder.is_dir() and os.access(folder, os.W_OK):
            return folder
    return HOME_FOLDER


def _in_plane(placement: Placement) -> Placement:
    """The part of an image's place that its last two axes have."""
    shear = placement.shear
    return replace(
        placement,
        scale=placement.scale[-2:],
        linear=placement.linear[-2:, -2:],
        translate=placement.translate[-2:],
        rotate=placement.rotate[-2:, -2:],
        shear=shear[-2:, -2:] if shear.ndim == 2 else shear[-1:],
        affine=placement.affine[-3:, -3:],
        units=placement.units[-2:],
        axis_labels=placement.axis_labels[-2:],
        lengths=(),
    )
