"""The small record beside a tiled run's output, from which it goes on after a stop.

A folder ``NAME.run`` beside the labels ``NAME``: what the run was started with (``run.json``), the
network's scores (``scores.npz``, until the run is complete) and the numbers of the finished tiles,
a line each, written once the tile is on the disk (``tiles.txt``).
"""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np

from napari_deepcrf.atomic import atomic_write
from napari_deepcrf.data.npz import open_npz
from napari_deepcrf.inference.score_maps import ScoreMaps
from napari_deepcrf.models import DeepCRF

MOST_DIGITS = 18
"""Of a tile's number; what is longer is no number that a run wrote."""


class RunRecord:
    """What a run wrote down; `start` makes a new one or finds that of the same run."""

    def __init__(self, folder: Path, identity: dict[str, Any]) -> None:
        self._folder = folder
        self._identity = identity
        self._lock = threading.Lock()

    @classmethod
    def start(cls, output: Path, identity: dict[str, Any]) -> RunRecord:
        """The record of a run with this identity (JSON-able values) into ``output``.

        Raises
        ------
        FileExistsError
            If the output is there and is not that of an unfinished or finished run like this.
        OSError
            If nothing can be written beside the output.
        """
        identity = json.loads(json.dumps(identity))
        record = cls(run_folder(output), identity)
        found = record._read()
        if found is not None and output.exists():
            changed = [name for name in identity if found.get(name) != identity[name]]
            if changed:
                raise FileExistsError(
                    f"out: {output} is a run with another {changed[0].replace('_', ' ')}; choose "
                    "another place or remove it"
                )
            return record
        if output.exists():
            raise FileExistsError(f"out: {output} is there already and is no run of this kind")
        shutil.rmtree(record._folder, ignore_errors=True)
        record._folder.mkdir(parents=True)
        with atomic_write(record._folder / "run.json") as stream:
            stream.write(json.dumps(identity, indent=1).encode())
        return record

    @classmethod
    def tile_of(cls, output: Path) -> int | None:
        """The tiles' size of the run that is there, if one is."""
        tile = (cls(run_folder(output), {})._read() or {}).get("tile")
        return tile if isinstance(tile, int) else None

    def finished(self) -> set[int]:
        """Numbers of the tiles that are on the disk; a line cut short by a crash is dropped."""
        try:
            with (self._folder / "tiles.txt").open("rb+") as stream:
                content = stream.read()
                stream.truncate(content.rfind(b"\n") + 1)
        except FileNotFoundError:
            return set()
        lines = content[: content.rfind(b"\n") + 1].splitlines()
        return {int(line) for line in lines if line.isdigit() and len(line) <= MOST_DIGITS}

    def add(self, number: int) -> None:
        """Note that a tile is on the disk."""
        with self._lock, (self._folder / "tiles.txt").open("a", encoding="utf-8") as stream:
            stream.write(f"{number}\n")

    def scores(self) -> ScoreMaps | None:
        """The scores of the run so far, if they are kept and whole."""
        try:
            with open_npz(self._folder / "scores.npz") as stored:
                height, width = map(int, stored["shape"])
                maps = tuple(stored[f"map{k}"] for k in range(len(stored.files) - 1))
        except (FileNotFoundError, ValueError):
            return None
        return ScoreMaps((height, width), maps)

    def keep_scores(self, scores: ScoreMaps) -> None:
        """Keep them, so that all tiles of the run come from the same."""
        maps = {f"map{k}": array for k, array in enumerate(scores.maps)}
        with atomic_write(self._folder / "scores.npz") as stream:
            np.savez(stream, shape=np.array(scores.shape), **maps)  # type: ignore[arg-type]

    def complete(self) -> None:
        """Drop what only an unfinished run needs."""
        (self._folder / "scores.npz").unlink(missing_ok=True)

    def _read(self) -> dict[str, Any] | None:
        try:
            found = json.loads((self._folder / "run.json").read_text("utf-8"))
        except (OSError, ValueError, RecursionError):
            return None
        return found if isinstance(found, dict) else None


def run_folder(output: Path) -> Path:
    """The folder of the record of a run into ``output``."""
    return output.with_name(output.name + ".run")


def model_digest(model: DeepCRF) -> str:
    """SHA-256 of a model's weights and configuration: all that its labels depend on."""
    total = hashlib.sha256(json.dumps(model.configuration(), sort_keys=True).encode())
    for name, value in sorted(model.network.state_dict().items()):
        array = value.detach().cpu().contiguous()
        total.update(f"{name} {array.dtype} {tuple(array.shape)}".encode())
        total.update(np.ascontiguousarray(array.numpy()).data)
    return total.hexdigest()
