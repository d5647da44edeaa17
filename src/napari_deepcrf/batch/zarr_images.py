"""The Zarr images of a run: each in tiles, from disk to disk, into the folder of the results."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

from napari_deepcrf.batch.formats import FORMATS
from napari_deepcrf.batch.records import Record, ResultFolder
from napari_deepcrf.digests import digest_path
from napari_deepcrf.inference import Predictor
from napari_deepcrf.inference.label_pyramid import LabelPyramid
from napari_deepcrf.inference.large import segment_large
from napari_deepcrf.inference.lazy_image import LazyImage
from napari_deepcrf.inference.memory import TilePlan
from napari_deepcrf.inference.reported_steps import reported_steps
from napari_deepcrf.inference.tiled_run_record import TiledRunRecord

KIND = FORMATS["ome-zarr"]


@dataclass(frozen=True)
class TilesDone:
    """How far the image in work is."""

    image: Path
    done: int
    total: int
    """Tiles, and windows of the network."""
    plan: str
    """Size of the tiles and what they take, as `TilePlan` says it."""


@dataclass(frozen=True)
class ZarrRun:
    """What all Zarr images of a run have in common."""

    results: ResultFolder
    """Of ``KIND``."""
    predictor: Predictor
    model_sha256: str
    view: int
    """Pixels of the image that the network sees side by side."""
    memory: int | None
    overwrite: bool

    def segment(self, image: Path, name: str) -> Generator[TilesDone, None, tuple[Record, bool]]:
        """Yields progress, returns the result's record and whether it was there already.

        Goes on from the tiles of a run that was cut short.

        Raises
        ------
        ValueError
            For what is no image, or no plan within the memory.
        OSError
            If something else is at the result's place, or it cannot be written.
        """
        lazy = LazyImage.of(image)
        content = digest_path(image)
        assert content is not None
        view = min(self.view, max(lazy.shape))
        made_by = hashlib.sha256(f"{self.model_sha256} view {view}".encode()).hexdigest()
        record = self.results.finished(name, content, made_by)
        if record is not None:
            return record, True
        self._make_room(image, name, content)
        place, plans = self.results.place(name), list[TilePlan]()
        place.parent.mkdir(parents=True, exist_ok=True)
        steps = reported_steps(
            lambda report: segment_large(
                image,
                self.predictor,
                place,
                view=view,
                memory=self.memory,
                on_progress=report,
                on_plan=plans.append,
            )
        )
        for done, total in steps:
            yield TilesDone(image, done, total, str(plans[0]))
        names = self.predictor.class_names
        counts = LabelPyramid.open(place).counts(len(names))
        digest = self.results.present(name)
        assert digest is not None
        record = Record(
            image=str(image.resolve()),
            image_sha256=content,
            model_sha256=made_by,
            size=lazy.shape,
            areas=dict(zip(names, counts, strict=True)),
            sha256=digest,
            replaces=None,
        )
        self.results.note(name, record)
        return record, False

    def _make_room(self, image: Path, name: str, content: str) -> None:
        """Remove an earlier result of this image, as for other formats, but no unfinished run."""
        place = self.results.place(name)
        if self.overwrite or self.results.has_record(name):
            self.results.check_free(name, image, content)
            TiledRunRecord.beside(place).discard()
            if place.exists():
                shutil.rmtree(place)
