"""What a reader may do with any file, and how much memory it may take for it."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

REFUSED = object()
"""What `outcome` gives for a file that was refused."""


def outcome(read: Callable[[Path], Any], path: Path) -> Any:
    """A reader's value, or `REFUSED`: by an error of ours, one line that names file or folder."""
    try:
        return read(path)
    except (ValueError, OSError) as error:
        message = str(error)
    assert "\n" not in message
    assert any(place.name in message for place in (path, *path.parents[:3]))
    return REFUSED


@pytest.fixture(name="outcome")
def outcome_fixture() -> Callable[[Callable[[Path], Any], Path], Any]:
    return outcome


@pytest.fixture
def refused() -> Callable[[Callable[[Path], Any], Path], None]:
    """Asserts that a reader refuses a file."""

    def check(read: Callable[[Path], Any], path: Path) -> None:
        assert outcome(read, path) is REFUSED

    return check


@pytest.fixture
def little_memory() -> Iterator[None]:
    """The process's memory may grow by a quarter of a gigabyte at most (measured on Linux)."""
    status = Path("/proc/self/status")
    if not status.is_file():
        yield
        return
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew from here
    before = _peak(status)
    yield
    assert _peak(status) - before < 256 << 10, "kB"


def _peak(status: Path) -> int:
    """The most memory that was resident at once, in kB."""
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1])
