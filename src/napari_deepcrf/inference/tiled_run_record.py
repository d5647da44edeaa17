"""The small record beside a tiled run's output, from which it goes on after a stop.

A folder ``NAME.run`` beside the labels ``NAME``: what the run was started with (``run.json``), the
network's scores (``scores.npz``, until the run is complete) and the numbers of the finished tiles,
a line each, written once the tile is on the disk (``tiles.txt``).
"""

from __future__ import annotations

import json
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from napari_deepcrf.atomic import atomic_write
from napari_deepcrf.data.npz import open_npz
from napari_deepcrf.inference.score_maps import ScoreMaps

IDENTITY, SCORES, TILES = "run.json", "scores.npz", "tiles.txt"
MOST_DIGITS = 18
"""Of a tile's number; what is longer is no number that a run wrote."""


class TiledRunRecord:
    """What a run wrote down; `start` makes a new one or finds that of the same run."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()

    @classmethod
    def beside(cls, output: Path) -> TiledRunRecord:
        """The record of a run into ``output``, whether there is one or not."""
        return cls(output.with_name(output.name + ".run"))

    @classmethod
    def start(cls, output: Path, identity: dict[str, Any]) -> TiledRunRecord:
        """The record of a run with this identity (JSON-able values) into ``output``.

        Raises
        ------
        FileExistsError
            If the output is there and is not that of an unfinished or finished run like this.
        OSError
            If nothing can be written beside the output.
        """
        identity = json.loads(json.dumps(identity))
        record = cls.beside(output)
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
        record.discard()
        record._folder.mkdir(parents=True, exist_ok=True)
        with atomic_write(record._folder / IDENTITY) as stream:
            stream.write(json.dumps(identity, indent=1).encode())
        return record

    @property
    def tile(self) -> int | None:
        """The tiles' size of the run that is there, if one is."""
        tile = (self._read() or {}).get("tile")
        return tile if isinstance(tile, int) else None

    def finished(self) -> set[int]:
        """Numbers of the tiles that are on the disk; a line cut short by a crash is dropped."""
        try:
            with (self._folder / TILES).open("rb+") as stream:
                content = stream.read()
                stream.truncate(content.rfind(b"\n") + 1)
        except FileNotFoundError:
            return set()
        lines = content[: content.rfind(b"\n") + 1].splitlines()
        return {int(line) for line in lines if line.isdigit() and len(line) <= MOST_DIGITS}

    def add(self, number: int) -> None:
        """Note that a tile is on the disk."""
        with self._lock, (self._folder / TILES).open("a", encoding="utf-8") as stream:
            stream.write(f"{number}\n")

    def scores(self) -> ScoreMaps | None:
        """The scores of the run so far, if they are kept and whole."""
        try:
            with open_npz(self._folder / SCORES) as stored:
                height, width = map(int, stored["shape"])
                maps = tuple(stored[f"map{k}"] for k in range(len(stored.files) - 1))
        except (FileNotFoundError, ValueError):
            return None
        return ScoreMaps((height, width), maps)

    def keep_scores(self, scores: ScoreMaps) -> None:
        """Keep them, so that all tiles of the run come from the same."""
        maps = {f"map{k}": array for k, array in enumerate(scores.maps)}
        with atomic_write(self._folder / SCORES) as stream:
            np.savez(stream, shape=np.array(scores.shape), **maps)  # type: ignore[arg-type]

    def complete(self) -> None:
        """Drop what only an unfinished run needs."""
        (self._folder / SCORES).unlink(missing_ok=True)

    def discard(self) -> None:
        """Remove the record, and nothing that somebody else has put into its folder."""
        for name in (IDENTITY, SCORES, TILES):
            (self._folder / name).unlink(missing_ok=True)
        with suppress(OSError):  # not there, or not empty
            self._folder.rmdir()

    def _read(self) -> dict[str, Any] | None:
        try:
            found = json.loads((self._folder / IDENTITY).read_text("utf-8"))
        except (OSError, ValueError, RecursionError):
            return None
        return found if isinstance(found, dict) else None
