"""Time the dense CRF on the CPU beside pydensecrf, after checking that the results are right.

    python benchmarks/cpu.py --out DIR     measures; writes DIR/cpu.json and DIR/cpu.md
    python benchmarks/cpu.py --quick       few repeats, no large images

Both start from the same arrays and end with marginals, lattices included. They take turns in one
process; times are medians, ratios are between medians of the same run. pydensecrf knows one
thread. Memory is the peak resident set above what imports, inputs and compiled code take, each
contender in a process of its own (Linux).
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from cpu_cases import PARAMETERS, UPDATES, Work, learning, ours, peer, slider, work
from napari_deepcrf.crf import DenseCRF

PHOTO = (375, 500)
LARGE = (1024, 1024)
AGREEMENT = 0.99
EXACT_ERROR, EXACT_AGREEMENT = 0.0025, 0.97
SLIDERS = ("w_bilateral", "theta_gamma", "theta_alpha", "theta_beta")
PEAK = Path("/proc/self/clear_refs")
"""Linux's, where writing a 5 lets the peak of memory start anew; elsewhere none is compared."""


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    case: str
    threads: int
    ours: float
    """Seconds, or what the case names."""
    peer: float | None
    target: str

    @property
    def ratio(self) -> float | None:
        return None if self.peer is None else self.peer / self.ours


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, help="folder for cpu.json and cpu.md")
    parser.add_argument("--quick", action="store_true", help="few repeats, no large images")
    parser.add_argument("--peak-memory", choices=["ours", "peer"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peak_memory:
        print(peak_memory(arguments.peak_memory))
        return 0
    problem = wrong()
    if problem:
        print(f"Nothing was timed: {problem}", file=sys.stderr)
        return 1
    rows = []
    for row in measure(quick=arguments.quick):
        print(line(row), flush=True)
        rows.append(row)
    if arguments.out:
        arguments.out.mkdir(parents=True, exist_ok=True)
        report = {
            "machine": platform.processor() or platform.machine(),
            "torch": torch.__version__,
            "parameters": PARAMETERS.to_dict(),
            "updates": UPDATES,
            "rows": [asdict(row) | {"ratio": row.ratio} for row in rows],
        }
        (arguments.out / "cpu.json").write_text(json.dumps(report, indent=1) + "\n")
        (arguments.out / "cpu.md").write_text(table(rows), encoding="utf-8")
    return 0


def wrong() -> str | None:
    """What is wrong with the results, if anything: beside the peer, and beside the exact ones."""
    given = work(*PHOTO, 21)
    same = float(np.mean(ours(given)().argmax(0) == peer(given).argmax(0)))
    if same < AGREEMENT:
        return f"labels agree with pydensecrf's at {same:.4f} of the pixels only"
    crop = given.crop(40, 200, 48, 64)
    exact, found = ours(crop, "exact")(), ours(crop)()
    error = float(np.abs(found - exact).mean())
    agreement = float(np.mean(found.argmax(0) == exact.argmax(0)))
    if error > EXACT_ERROR or agreement < EXACT_AGREEMENT:
        return f"off the exact marginals by {error:.5f}, labels {agreement:.4f}"
    return None


def measure(*, quick: bool) -> Iterator[Row]:
    """Every case, one after the other; few images are in memory at a time."""
    repeats = 3 if quick else 9
    given = work(*PHOTO, 21)
    yield versus("500×375, 21 classes", given, 1, repeats, "≥ 2 ×")
    yield versus("500×375, 21 classes", given, 2, repeats, "≥ 3.5 ×")
    yield versus("500×375, 21 classes, accurate", given, 2, repeats, "≥ 1 ×", "accurate")
    yield from accuracy(given.crop(40, 200, 48, 64))
    yield alone("forward + backward, 21 classes", learning(given), 1, repeats, "0.6 s")
    run = learning(given, "accurate")
    yield alone("forward + backward, 21 classes, accurate", run, 1, 3, "–")
    for changed in SLIDERS:
        case = f"slider {changed}, 21 classes"
        yield alone(case, slider(given, changed), 2, repeats, "0.12 s")
    few = work(*PHOTO, 4)
    for changed in SLIDERS:
        case = f"slider {changed}, 4 classes"
        yield alone(case, slider(few, changed), 2, repeats, "0.05 s")
    yield versus("500×375, 2 classes", work(*PHOTO, 2), 1, repeats, "≥ 2.5 ×")
    if quick:
        return
    yield versus("1024×1024, 21 classes", work(*LARGE, 21), 1, 3, "≥ 2.5 ×")
    if PEAK.exists():
        own, other = (memory_of(who) for who in ("ours", "peer"))
        yield Row("1024×1024, 21 classes, peak memory in MB", 1, own, other, "≥ 2 ×")
    for side in (512, 1024, 2048, 4096):
        run = ours(work(side, side, 3))
        seconds = alone("", run, 1, 3, "").ours
        case = f"{side}×{side}, 3 classes, µs a pixel"
        yield Row(case, 1, seconds / side**2 * 1e6, None, "grows ≤ 1.5 ×")


def accuracy(crop: Work) -> Iterator[Row]:
    """How far ``quality="accurate"`` and the peer are from the exact marginals."""
    exact = ours(crop, "exact")()
    found, other = ours(crop, "accurate")(), peer(crop)
    own, others = (float(np.abs(q - exact).mean()) for q in (found, other))
    yield Row("64×48, accurate, mean error of the marginals", 1, own, others, "≤ 0.00125")
    labels = exact.argmax(0)
    own, others = (float(np.mean(q.argmax(0) != labels)) for q in (found, other))
    yield Row("64×48, accurate, share of labels unlike the exact ones", 1, own, others, "≤ 0.015")


def versus(
    case: str, given: Work, threads: int, repeats: int, target: str, quality: str = "fast"
) -> Row:
    """Ours and the peer by turns."""
    torch.set_num_threads(threads)
    run = ours(given, quality)
    run()
    pairs = [(seconds(run), seconds(lambda: peer(given))) for _ in range(repeats)]
    own, other = (statistics.median(column) for column in zip(*pairs, strict=True))
    return Row(case, threads, own, other, target)


def alone(case: str, run: Callable[[], object], threads: int, repeats: int, target: str) -> Row:
    torch.set_num_threads(threads)
    run()
    median = statistics.median(seconds(run) for _ in range(repeats))
    return Row(case, threads, median, None, target)


def seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def memory_of(who: str) -> float:
    command = [sys.executable, __file__, "--peak-memory", who]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def peak_memory(who: str) -> float:
    """MB of this process above its state before the run, in which code is loaded and compiled."""
    torch.set_num_threads(1)
    given = work(*LARGE, 21)
    run = ours(given) if who == "ours" else lambda: peer(given)
    small = given.crop(0, 0, 64, 64)
    _ = ours(small)(), peer(small), DenseCRF()
    PEAK.write_text("5")
    before = _status("VmRSS")
    run()
    return (_status("VmHWM") - before) / 1024


def _status(field: str) -> int:
    found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1])


def line(row: Row) -> str:
    other = "–" if row.peer is None else f"{row.peer:.3g}"
    ratio = "–" if row.ratio is None else f"{row.ratio:.2f} ×"
    return f"| {row.case} | {row.threads} | {row.ours:.3g} | {other} | {ratio} | {row.target} |"


def table(rows: list[Row]) -> str:
    head = "| work | threads | ours | pydensecrf, 1 thread | ratio | to reach |\n"
    return head + "|---|---|---|---|---|---|\n" + "".join(line(row) + "\n" for row in rows)


if __name__ == "__main__":
    sys.exit(main())
