"""Where a benchmark leaves its results: DIR/NAME.json and DIR/NAME.md, and the screen."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def publish(out: Path | None, name: str, report: dict[str, Any], table: str) -> None:
    """Print the table; with a folder, write it there, and the report as JSON."""
    print(table)
    if out is None:
        return
    out.mkdir(parents=True, exist_ok=True)
    text = json.dumps(report, indent=1, ensure_ascii=False) + "\n"
    (out / f"{name}.json").write_text(text, encoding="utf-8")
    (out / f"{name}.md").write_text(table, encoding="utf-8")
