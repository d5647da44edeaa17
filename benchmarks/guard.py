"""Fail if the CPU kernels have become slow: ratios of one run, never seconds.

    python benchmarks/guard.py                 exit code 1 where a bound is broken
    python benchmarks/guard.py --handicap 2    runs ours twice a turn: shows that it can fail

Contenders take turns on one thread, and what counts is processor time, which other programs on
the machine hardly change. Ratios are between medians. The bounds leave some 40 % for noise
below what docs/performance.md reports, so they catch a lost optimisation, not a lost per cent.
Results are checked before anything is timed. Exit code 2 where pydensecrf2 is not installed.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path

import torch

from cpu import PHOTO, wrong
from cpu_cases import learning, ours, peer, slider, work
from report import publish

TURNS = 7


@dataclass(frozen=True)
class Bound:
    """A ratio of two processor times, and the least that it may be."""

    what: str
    ratio: float
    least: float

    @property
    def holds(self) -> bool:
        return self.ratio >= self.least


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, help="folder for guard.json and guard.md")
    parser.add_argument("--handicap", type=int, default=1, help="run ours so many times a turn")
    arguments = parser.parse_args()
    if find_spec("pydensecrf") is None:
        print("pydensecrf2 is not installed: there is nothing to compare with", file=sys.stderr)
        return 2
    torch.set_num_threads(1)
    problem = wrong()
    if problem:
        print(f"Nothing was timed: {problem}", file=sys.stderr)
        return 1
    bounds = measure(arguments.handicap)
    table = "| processor time of … over that of … | ratio | at least | |\n|---|---|---|---|\n"
    for bound in bounds:
        verdict = "ok" if bound.holds else "**too slow**"
        table += f"| {bound.what} | {bound.ratio:.2f} | {bound.least:g} | {verdict} |\n"
    report = {"bounds": [asdict(bound) | {"holds": bound.holds} for bound in bounds]}
    publish(arguments.out, "guard", report, table)
    return 0 if all(bound.holds for bound in bounds) else 1


def measure(handicap: int) -> list[Bound]:
    many = work(*PHOTO, 21)
    runs = {
        "peer": lambda: peer(many),
        "ours": repeated(ours(many), handicap),
        "backward": repeated(learning(many), handicap),
        "slider": repeated(slider(many, "w_bilateral"), handicap),
    }
    times = medians(runs)
    few = work(*PHOTO, 2)
    two = medians({"peer": lambda: peer(few), "ours": repeated(ours(few), handicap)})
    return [
        Bound("pydensecrf over ours, 21 classes", times["peer"] / times["ours"], 2.0),
        Bound("pydensecrf over ours, 2 classes", two["peer"] / two["ours"], 1.6),
        Bound("pydensecrf over forward + backward", times["peer"] / times["backward"], 0.7),
        Bound("pydensecrf over a slider's move", times["peer"] / times["slider"], 2.7),
    ]


def medians(runs: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Processor seconds of each, all taking turns, after one turn that is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(TURNS + 1):
        for name, run in runs.items():
            start = time.process_time()
            run()
            if turn:
                seconds[name].append(time.process_time() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def repeated(run: Callable[[], object], times: int) -> Callable[[], object]:
    def several() -> None:
        for _ in range(times):
            run()

    return several


if __name__ == "__main__":
    sys.exit(main())
