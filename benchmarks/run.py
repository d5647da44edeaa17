"""Run every benchmark and gather what they found: ``python benchmarks/run.py [--out DIR]``.

Each script is a program of its own with the same outside: it checks results before it times
anything, takes --out DIR and --quick, and writes DIR/NAME.json and DIR/NAME.md. Exit code 0: all
measured; 2: it cannot be measured here (no GPU, no display, no peer); 1: results are wrong. They
run one after the other, and the tables come together in DIR/all.md and DIR/all.json. The exit
code is 1 if one of theirs is neither 0 nor 2.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from display import NO_DISPLAY, with_display

HERE = Path(__file__).parent
TITLES = {
    "cpu": "The dense CRF on the CPU, beside pydensecrf",
    "gpu": "The dense CRF on a GPU",
    "training": "Training steps",
    "widget": "The dock: clicks and sliders",
    "startup": "Starting, and memory",
    "scale": "Images larger than memory",
    "cluster": "Folders on a cluster",
    "guard": "Guarded ratios",
}
QUICK = {"gpu": (), "guard": (), "cluster": ("--images", "8")}
"""What takes less time, where it is not --quick."""
WINDOWS = {"widget"}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("bench-output"), help="folder for results")
    parser.add_argument("--quick", action="store_true", help="few repeats")
    parser.add_argument("--only", nargs="+", choices=list(TITLES), help="these alone")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = {"machine": machine(), "benchmarks": {}}
    sections = ["# Benchmarks\n", "".join(f"- {k}: {v}\n" for k, v in found["machine"].items())]
    wrong = False
    for name in arguments.only or TITLES:
        code, last_words = run(name, arguments.out, quick=arguments.quick)
        wrong |= code not in (0, 2)
        result, table = read(arguments.out / name)
        found["benchmarks"][name] = {"exit_code": code, "said": last_words, "result": result}
        note = "" if code == 0 else f"\n**Exit code {code}**: {last_words}\n"
        sections.append(f"## {TITLES[name]}\n\n{table}{note}")
        # After each, so that a run that is cut short leaves what it has.
        (arguments.out / "all.md").write_text("\n".join(sections), encoding="utf-8")
        text = json.dumps(found, indent=1, ensure_ascii=False) + "\n"
        (arguments.out / "all.json").write_text(text, encoding="utf-8")
    print(arguments.out / "all.md")
    return int(wrong)


def run(name: str, out: Path, *, quick: bool) -> tuple[int, str]:
    """Run a script, its table on the screen; its exit code, and the last line of its errors."""
    for kind in (".json", ".md"):
        (out / name).with_suffix(kind).unlink(missing_ok=True)
    options = QUICK.get(name, ("--quick",)) if quick else ()
    command = [sys.executable, str(HERE / f"{name}.py"), "--out", str(out), *options]
    shown = with_display(command) if name in WINDOWS else command
    if shown is None:
        return 2, NO_DISPLAY
    print(f"== {TITLES[name]}", flush=True)
    done = subprocess.run(shown, stderr=subprocess.PIPE, text=True, check=False)
    lines = done.stderr.strip().splitlines()
    return done.returncode, lines[-1] if lines else ""


def read(path: Path) -> tuple[Any, str]:
    """What a script has written: its JSON and its Markdown."""
    document, table = path.with_suffix(".json"), path.with_suffix(".md")
    result = json.loads(document.read_text(encoding="utf-8")) if document.is_file() else None
    return result, table.read_text(encoding="utf-8") if table.is_file() else ""


def machine() -> dict[str, str]:
    import numba
    import torch

    load = ", ".join(f"{value:.1f}" for value in os.getloadavg()) if os.name == "posix" else ""
    return {
        "time": datetime.now(UTC).isoformat(timespec="minutes"),
        "processor": processor(),
        "cores": str(os.cpu_count()),
        "load before": load,
        "system": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numba": numba.__version__,
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
    }


def processor() -> str:
    """The processor's product name where Linux tells it."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


if __name__ == "__main__":
    sys.exit(main())
