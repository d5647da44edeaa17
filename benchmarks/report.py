"""Where a benchmark leaves its results: DIR/NAME.json and DIR/NAME.md, and the screen.

And what several of them ask of the system, on each as it can be asked.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import psutil


def publish(out: Path | None, name: str, report: dict[str, Any], table: str) -> None:
    """Print the table; with a folder, write it there, and the report as JSON."""
    print(table)
    if out is None:
        return
    out.mkdir(parents=True, exist_ok=True)
    text = json.dumps(report, indent=1, ensure_ascii=False) + "\n"
    (out / f"{name}.json").write_text(text, encoding="utf-8")
    (out / f"{name}.md").write_text(table, encoding="utf-8")


def peak_bytes() -> int:
    """The most memory that this process has had resident at once."""
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def load() -> float | None:
    """Processes that want to run, over the last minute; ``None`` on Windows, which does not say."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None
