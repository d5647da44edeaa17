"""Images of any size from disk to disk, tile by tile.

from napari_deepcrf.inference.large import segment_large
segment_large("slide.ome.zarr", "voc-compact", "labels.ome.zarr", view=1024, on_progress=print)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from napari_deepcrf.crf import DenseCRF
from napari_deepcrf.digests import digest_path
from napari_deepcrf.inference.label_pyramid import LabelPyramid
from napari_deepcrf.inference.memory import TilePlan
from napari_deepcrf.inference.predictor import Predictor, ProgressCallback
from napari_deepcrf.inference.tiled_image import TiledImage
from napari_deepcrf.inference.tiled_run_record import TiledRunRecord
from napari_deepcrf.inference.tiling import Labels, Tile
from napari_deepcrf.models import DeepCRF
from napari_deepcrf.models.model_digest import model_digest


def segment_large(
    image: Any,
    model: DeepCRF | str | Path | Predictor,
    out: Path | str,
    *,
    view: int | None = None,
    crf: DenseCRF | None = None,
    memory: int | None = None,
    tile: int | None = None,
    workers: int | None = None,
    device: str = "auto",
    on_progress: ProgressCallback | None = None,
    on_plan: Callable[[TilePlan], None] | None = None,
) -> Path:
    """Segment an image of any size into the OME-Zarr label image ``out``, tile by tile.

    A run that was cancelled (by an exception from ``on_progress``) or killed goes on from its
    finished tiles when it is started again with the same image, model and options; the folder
    ``NAME.run`` beside the output names them. Other parameters as for `TiledImage`.

    Parameters
    ----------
    on_progress
        Called with (done, total), in tiles; the network's windows count as well.
    on_plan
        Told tile size, workers and estimated memory before anything is computed.

    Returns
    -------
    Path
        ``out``.

    Raises
    ------
    ValueError
        As `TiledImage` does.
    FileExistsError
        If something else is at ``out``, another run with other settings included.
    OSError
        If the output cannot be written; finished tiles stay.
    """
    out = Path(out)
    predictor = model if isinstance(model, Predictor) else Predictor(model, device=device)
    work = TiledImage(
        image,
        predictor,
        view=view,
        crf=crf,
        memory=memory,
        tile=tile or TiledRunRecord.beside(out).tile,
        workers=workers,
    )
    if on_plan is not None:
        on_plan(work.plan)
    identity = {"image": _content(image, work), **_identity(work)}
    record = TiledRunRecord.start(out, {**identity, "tile": work.plan.tile})
    _fill(_labels_at(out, work, identity), record, work, on_progress)
    record.complete()
    return out


def _labels_at(out: Path, work: TiledImage, identity: dict[str, Any]) -> LabelPyramid:
    """The labels of an earlier run, or new ones."""
    if out.exists():
        return LabelPyramid.open(out)
    return LabelPyramid.create(
        out,
        work.image.shape,
        tile=work.plan.tile,
        class_names=work.predictor.class_names,
        attributes={"napari-deepcrf": identity},
    )


def _fill(
    labels: LabelPyramid,
    record: TiledRunRecord,
    work: TiledImage,
    on_progress: ProgressCallback | None,
) -> None:
    """Write the tiles that are missing, each into its place and then into the record."""
    finished = record.finished()
    todo = [tile for tile in work.tiles if tile.number not in finished]
    report = on_progress or (lambda done, total: None)
    counter = _Counter(report, done=len(work.tiles) - len(todo), total=len(work.tiles))
    counter.tell()
    if not todo:
        return
    scores = record.scores()
    if scores is None:
        scores = work.scores(counter.windows)
        record.keep_scores(scores)

    def write(tile: Tile, values: Labels) -> None:
        labels.write(tile, values)
        record.add(tile.number)

    work.run(scores, write, tiles=todo, on_tile=counter.tile)


@dataclass
class _Counter:
    """Tiles and the network's windows, on one scale."""

    report: ProgressCallback
    done: int
    total: int

    def tell(self) -> None:
        self.report(self.done, self.total)

    def tile(self, _tile: Tile) -> None:
        self.done += 1
        self.tell()

    def windows(self, done: int, total: int) -> None:
        """The network's windows come on top, and are done when the tiles begin."""
        self.report(self.done + done, self.total + total)
        if done == total:
            self.done, self.total = self.done + total, self.total + total


def _content(image: Any, work: TiledImage) -> str:
    """What tells the image from others: all bytes on the disk, or a sample of an array's pixels."""
    stored = digest_path(Path(image)) if isinstance(image, (str, Path)) else None
    return stored or work.image.fingerprint()


def _identity(work: TiledImage) -> dict[str, Any]:
    """What a run's labels depend on, by the names that messages use."""
    from napari_deepcrf.models.crf_config import crf_configuration

    model = work.predictor.model
    return {
        "shape": list(work.image.shape),
        "model": model.name,
        "model_sha256": model_digest(model),
        "crf": crf_configuration(work.crf),
        "view": work.view,
    }
