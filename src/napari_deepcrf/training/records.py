"""The record of a run: its configuration, and every event as a line of JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from napari_deepcrf.atomic import atomic_write
from napari_deepcrf.training.events import Event, StageStarted, event_record

EVENTS_FILE = "events.jsonl"
CONFIG_FILE = "config.json"
IDENTITY = ("name", "seed", "init", "class_names", "train_samples")
"""Settings without which a run is another one, and must not go on from its checkpoints."""


class RunRecord:
    """Writes ``config.json`` and appends to ``events.jsonl`` in a run's folder.

    When a stage goes on at some step, the lines of later steps, which a killed process may have
    written after its last checkpoint, are dropped: the file reads like that of a run left alone.

    Raises
    ------
    ValueError
        If the folder holds checkpoints of a run with another recipe, seed, start or data.
    """

    def __init__(self, folder: Path, config: dict[str, Any]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / EVENTS_FILE
        _check_same_run(folder, config)
        with atomic_write(folder / CONFIG_FILE) as file:
            file.write(json.dumps(config, indent=2).encode())

    def add(self, event: Event) -> None:
        """Append an event."""
        if isinstance(event, StageStarted):
            self._forget_after(event)
        line = json.dumps(event_record(event))
        with self.path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def _forget_after(self, start: StageStarted) -> None:
        kept = [
            json.dumps(line)
            for line in read_events(self.path)
            if line["event"] != "StageStarted"
            and (line["stage"] != start.stage or line["step"] <= start.step)
        ]
        # A stage that starts afresh measures its beginning again.
        if start.step == 0:
            kept = [line for line in kept if json.loads(line)["stage"] != start.stage]
        with atomic_write(self.path) as file:
            file.write("".join(line + "\n" for line in kept).encode())


def _check_same_run(folder: Path, config: dict[str, Any]) -> None:
    """Refuse to continue from another run's checkpoints. An unreadable record says nothing."""
    if not any(folder.glob("*-last.safetensors")):
        return
    try:
        before = json.loads((folder / CONFIG_FILE).read_bytes())
    except (OSError, ValueError, RecursionError):
        return
    if not isinstance(before, dict):
        return
    for key in IDENTITY:
        if key in before and before[key] != config.get(key):
            raise ValueError(
                f"{folder}: expected a new folder or the run that lies there, with {key} "
                f"{before[key]!r}, got {key} {config.get(key)!r}"
            )


def read_events(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of an ``events.jsonl``; one that is no event of a stage is skipped.

    A killed process leaves half a line, and a crash of the machine whatever was on the disk.
    """
    if not path.is_file():
        return
    for line in path.read_bytes().splitlines():
        try:
            event = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(event, dict) and event.keys() >= {"event", "stage", "step"}:
            yield event
