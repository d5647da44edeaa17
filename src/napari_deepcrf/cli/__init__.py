"""The command line: every command is a thin layer over one function of the library.

Exit codes: 0 all done, 2 bad input (one line on stderr for each, no traceback).
"""

from napari_deepcrf.cli.app import main

__all__ = ["main"]
