"""`napari-deepcrf demo`."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import typer

from napari_deepcrf.cli.options import Out


def demo(out: Out = Path("demo-output")) -> None:
    """Segment a sample photo: in napari where there is a display, into PNG files elsewhere."""
    if find_spec("napari") is None:
        raise ValueError('the demo needs napari: pip install "napari-deepcrf[all]"')
    # A process of its own: the command line stays free of Qt, and can pick a virtual display.
    command = [sys.executable, "-m", "napari_deepcrf.plugin.demo", "--out", str(out)]
    raise typer.Exit(subprocess.run(command, check=False).returncode)
