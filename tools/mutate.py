"""Mutation testing on a sample: `python tools/mutate.py --sample 200 --seed 0`.

Needs mutmut (``pip install mutmut==3.8.1``); what is mutated and which tests judge it stands in
pyproject.toml under ``[tool.mutmut]``. Works in ``mutation-output``, on a copy of the tree, whose
``mutants`` folder keeps every mutant: ``mutmut show NAME`` there prints one. Prints each mutant of
the sample that no test noticed, and how many were noticed. It takes a quarter of a minute for a
mutant that is noticed, and minutes for one that is not; ``--resume`` goes on after a run that was
stopped, with the tree as it was then.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[1]
WORK = ROOT / "mutation-output"
COPIED = ("src", "tests", "pyproject.toml")

# mutmut copies without times, by which Numba tells whether its compiled kernels are still those of
# the sources: with them nothing is compiled anew.
RUN = "import shutil, sys; shutil.copy = shutil.copy2; from mutmut.__main__ import cli; cli()"

NOTICED = (1, 3, 24, -24, 36, 152, 255)
"""Exit codes of a mutant's tests: a failure, an error, or a time limit."""


def mutmut(*arguments: str) -> None:
    """Run mutmut in the copy, one thread and one child at a time: forks and threads do not mix."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", RUN, "run", "--max-children", "1", *arguments]
    subprocess.run(command, cwd=WORK, env=environment, check=True)


def verdicts() -> dict[str, int | None]:
    """The exit code of every mutant's tests; None for those that were not run."""
    found: dict[str, int | None] = {}
    for path in sorted((WORK / "mutants").rglob("*.meta")):
        found |= json.loads(path.read_text())["exit_code_by_key"]
    return found


def start() -> None:
    """Copy the tree and make its mutants."""
    shutil.rmtree(WORK, ignore_errors=True)
    WORK.mkdir()
    for name in COPIED:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy2
        copy(ROOT / name, WORK / name)
    mutmut("napari_deepcrf.training.metrics.*mutmut_1")  # makes all, judges a few


def main() -> int:
    """Judge a sample of the mutants, and print what was not noticed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sample", type=int, default=200, help="mutants to judge")
    parser.add_argument("--seed", type=int, default=0, help="of the draw")
    parser.add_argument("--resume", action="store_true", help="judge what is left of the sample")
    options = parser.parse_args()
    if not options.resume:
        start()
    sample = random.Random(options.seed).sample(sorted(verdicts()), options.sample)
    left = [name for name in sample if verdicts()[name] is None]
    if left:
        mutmut(*left)
    judged = {name: verdicts()[name] for name in sample}
    for name, code in judged.items():
        if code not in NOTICED:
            print(f"not noticed ({code}): {name}")
    print(Counter("noticed" if code in NOTICED else "not noticed" for code in judged.values()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
