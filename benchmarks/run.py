"""Run every benchmark and gather what they found: ``python benchmarks/run.py [--out DIR]``.

Each script is a program of its own with the same outside: it checks results before it times
anything, takes --out DIR and --quick, and writes DIR/NAME.json and DIR/NAME.md. Exit code 0: all
measured; 2: it cannot be measured here (no GPU, no display, no peer); 1: results are wrong. They
run one after the other, and the tables come together in DIR/all.md and DIR/all.json, with a word
on what failed or went on for too long. The exit code is 1 if anything did. On two idle cores
--quick takes less than a quarter of an hour, everything about twice that.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from display import NO_DISPLAY, with_display
from report import load

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
LIMIT_S = 1800
"""Only ends what hangs."""


@dataclass(frozen=True)
class Ended:
    """How a script ended."""

    exit_code: int
    seconds: float
    last_words: str
    """The last line of its errors."""

    @property
    def failed(self) -> bool:
        return self.exit_code not in (0, 2)

    @property
    def note(self) -> str:
        """What stands below its table; nothing where all was measured."""
        if self.failed:
            return f"\n**Failed with exit code {self.exit_code}**: {self.last_words}\n"
        return f"\nNot all was measured: {self.last_words}\n" if self.exit_code else ""


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("bench-output"), help="folder for results")
    parser.add_argument("--quick", action="store_true", help="few repeats")
    parser.add_argument("--only", nargs="+", choices=list(TITLES), help="these alone")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = {"machine": machine(), "benchmarks": {}}
    sections = ["# Benchmarks\n", "".join(f"- {k}: {v}\n" for k, v in found["machine"].items())]
    failed = []
    for name in arguments.only or TITLES:
        ended = run(name, arguments.out, quick=arguments.quick)
        if ended.failed:
            failed.append(name)
        result, table = read(arguments.out / name)
        found["benchmarks"][name] = {**asdict(ended), "result": result}
        sections.append(f"## {TITLES[name]}\n\n{table}{ended.note}")
        # After each, so that a run that is cut short leaves what it has.
        (arguments.out / "all.md").write_text("\n".join(sections), encoding="utf-8")
        text = json.dumps(found, indent=1, ensure_ascii=False) + "\n"
        (arguments.out / "all.json").write_text(text, encoding="utf-8")
    print(arguments.out / "all.md")
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return int(bool(failed))


def run(name: str, out: Path, *, quick: bool) -> Ended:
    """Run a script, its table and its errors on the screen."""
    for kind in (".json", ".md"):
        (out / name).with_suffix(kind).unlink(missing_ok=True)
    options = QUICK.get(name, ("--quick",)) if quick else ()
    command = [sys.executable, str(HERE / f"{name}.py"), "--out", str(out), *options]
    shown = with_display(command) if name in WINDOWS else command
    if shown is None:
        return Ended(2, 0.0, NO_DISPLAY)
    print(f"== {TITLES[name]}", flush=True)
    start, last_words = time.monotonic(), ""
    # In a group of its own: what a script has started ends with it.
    with subprocess.Popen(
        shown, stderr=subprocess.PIPE, text=True, errors="replace", start_new_session=True
    ) as process:
        limit = threading.Timer(LIMIT_S, end_group, [process])
        limit.start()
        assert process.stderr is not None
        for line in process.stderr:
            print(line, end="", file=sys.stderr, flush=True)
            last_words = line.strip() or last_words
        process.wait()
        limit.cancel()
    seconds = time.monotonic() - start
    if seconds >= LIMIT_S:
        last_words = f"ended after {LIMIT_S} s; its last words: {last_words}"
    return Ended(process.returncode, seconds, last_words)


def end_group(process: subprocess.Popen[str]) -> None:
    if os.name == "posix":
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()


def read(path: Path) -> tuple[Any, str]:
    """What a script has written: its JSON and its Markdown."""
    document, table = path.with_suffix(".json"), path.with_suffix(".md")
    result = json.loads(document.read_text(encoding="utf-8")) if document.is_file() else None
    return result, table.read_text(encoding="utf-8") if table.is_file() else ""


def machine() -> dict[str, str]:
    import numba
    import torch

    waiting = load()
    return {
        "time": datetime.now(UTC).isoformat(timespec="minutes"),
        "processor": processor(),
        "cores": str(os.cpu_count()),
        "load before": "not known" if waiting is None else f"{waiting:.1f}",
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
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


if __name__ == "__main__":
    sys.exit(main())
