"""Try an installed napari-deepcrf from outside its tree: ``python tools/smoke.py [BINDING]``.

Run it with the Python of the environment to be tried, in an empty folder. The import must be light,
the manifest readable, and the command line must find the cat in a photo of one. With a Qt binding
(pyqt6 or pyside6), which must be the only one installed, the dock opens in a viewer and segments
too, off screen where there is no display. Anything else ends it with a message.
"""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

BINDINGS = {"pyqt6": "PyQt6", "pyside6": "PySide6"}
CAT = 8
LEAST_SHARE = 0.1
COMMAND = [sys.executable, "-m", "napari_deepcrf.cli"]


def main() -> None:
    binding = sys.argv[1] if len(sys.argv) > 1 else None
    if binding is not None and binding not in BINDINGS:
        raise SystemExit(f"BINDING: expected one of {', '.join(BINDINGS)}, got {binding!r}")
    check_import()
    check_segment()
    tried = ["import", "segment"]
    if binding is not None:
        check_manifest()
        check_window(binding)
        tried += ["manifest", f"window with {BINDINGS[binding]}"]
    print(f"Python {sys.version.split()[0]}: {', '.join(tried)}: all well")


def check_import() -> None:
    import napari_deepcrf

    heavy = [name for name in ("torch", "qtpy", "napari", "numba") if name in sys.modules]
    assert not heavy, f"import napari_deepcrf loads {heavy}"
    here = Path(napari_deepcrf.__file__)
    assert "site-packages" in here.parts, f"{here} is not an installed copy"


def check_segment() -> None:
    from PIL import Image
    from skimage import data

    Image.fromarray(data.chelsea()).save("photo of a cat.jpg")
    subprocess.run([*COMMAND, "segment", "photo of a cat.jpg", "--out", "results"], check=True)
    check_labels(Path("results", "photo of a cat.png"))


def check_manifest() -> None:
    from npe2 import PluginManifest

    manifest = PluginManifest.from_distribution("napari-deepcrf")
    assert manifest.contributions.widgets, "the manifest names no widget"


def check_window(binding: str) -> None:
    others = [name for name in BINDINGS.values() if name != BINDINGS[binding]]
    found = [name for name in others if find_spec(name) is not None]
    assert not found, f"{found} beside {BINDINGS[binding]}: nobody knows which one was tried"
    environment = os.environ | {"QT_API": binding}
    subprocess.run([*COMMAND, "demo", "--out", "window"], check=True, env=environment)
    if not Path("window").is_dir():  # on a display the demo stays open and writes nothing
        raise SystemExit("no pictures: unset DISPLAY, so that the demo runs off screen")
    check_labels(Path("window", "labels.png"))


def check_labels(path: Path) -> None:
    import numpy as np
    from PIL import Image

    labels = np.asarray(Image.open(path))
    assert labels.shape == (300, 451), f"{path}: {labels.shape}"
    share = float((labels == CAT).mean())
    assert share > LEAST_SHARE, f"{path}: class {CAT}, the cat, covers {share:.1%} of its photo"


if __name__ == "__main__":
    main()
