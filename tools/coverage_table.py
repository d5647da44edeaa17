"""The table of coverage in docs/hardening.md: ``python tools/coverage_table.py REPORT``.

REPORT is what ``pytest --cov --cov-report=json:REPORT`` writes. Prints a line for each package of
the core; exit code 1 where one is below the bound, with the lines that nothing reached.
"""

from __future__ import annotations

import json
import sys
from dataclasses import astuple, dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

PACKAGES = {
    "lattice": ("lattice/[!t]*", "lattice/torch_*"),
    "crf": ("crf/*",),
    "models": ("models/*",),
    "data": ("data/*",),
    "training": ("training/*",),
    "inference": ("inference/*",),
    "batch": ("batch/*",),
    "session": ("session/*",),
}
"""Their files, below the package; Triton's launching code needs a GPU for the most part."""
OTHERS = {"lattice/triton_*": ("lattice/triton_*",)}
LEAST_PERCENT = 95.0


@dataclass(frozen=True)
class Count:
    """Lines and branches of some files."""

    lines: int
    lines_missed: int
    branches: int
    branches_missed: int

    @classmethod
    def of(cls, files: list[Any]) -> Count:
        names = ("num_statements", "missing_lines", "num_branches", "missing_branches")
        return cls(*(sum(file["summary"][name] for file in files) for name in names))

    @property
    def percent(self) -> float:
        """Of lines and branches together."""
        missed = self.lines_missed + self.branches_missed
        return 100 * (1 - missed / (self.lines + self.branches))


def main() -> int:
    report = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))["files"]
    files = {
        Path(path).as_posix().rpartition("napari_deepcrf/")[2]: found
        for path, found in report.items()
    }
    print("| package | lines | not reached | branches | not taken | together |")
    print("|---|---|---|---|---|---|")
    below = []
    for package, patterns in (PACKAGES | OTHERS).items():
        names = [name for name in files if any(fnmatch(name, pattern) for pattern in patterns)]
        count = Count.of([files[name] for name in names])
        cells = " | ".join(map(str, astuple(count)))
        print(f"| `{package}` | {cells} | {count.percent:.1f} % |")
        if package in PACKAGES and count.percent < LEAST_PERCENT:
            below += names
    for name in below:
        lines, branches = files[name]["missing_lines"], files[name]["missing_branches"]
        if lines or branches:
            print(f"{name}: lines {lines}, branches {branches}", file=sys.stderr)
    return int(bool(below))


if __name__ == "__main__":
    sys.exit(main())
