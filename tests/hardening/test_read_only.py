"""A machine that lets nothing be kept: neither beside the package nor in the home folder."""

import os
import subprocess
import sys
from pathlib import Path

PROGRAM = """
import errno
from numba.core import caching

def refuse(self):
    raise OSError(errno.EROFS, "Read-only file system")

locator = getattr(caching, "InTreeCacheLocator", None) or caching._InTreeCacheLocator  # Numba 0.61
locator.ensure_cache_path = refuse

from pathlib import Path
from numba import config
from napari_deepcrf.lattice.kernels import select_kernels

select_kernels("numba")
print(Path(config.CACHE_DIR).is_dir())
print(config.CACHE_DIR)
"""


def test_kernels_are_compiled_for_the_process_alone(tmp_path):
    (tmp_path / "file").touch()
    home = str(tmp_path / "file" / "home")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("NUMBA_", "XDG_"))}
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=environment | {"HOME": home, "USERPROFILE": home, "LOCALAPPDATA": home},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert "set NUMBA_CACHE_DIR to a folder that can be written to" in result.stderr
    there, folder = result.stdout.splitlines()
    assert there == "True"
    assert not Path(folder).exists()  # it went with the process
