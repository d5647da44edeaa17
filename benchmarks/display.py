"""Windows without a screen."""

from __future__ import annotations

import os
import shutil
import sys

NO_DISPLAY = "there is no display and no xvfb-run"


def with_display(command: list[str]) -> list[str] | None:
    """The command as it is where there is a display, else under Xvfb; None where neither is."""
    displays = ("DISPLAY", "WAYLAND_DISPLAY")
    if not sys.platform.startswith("linux") or any(os.environ.get(name) for name in displays):
        return command
    if shutil.which("xvfb-run") is None:
        return None
    return ["xvfb-run", "-a", "-s", "-screen 0 1600x1200x24", *command]
