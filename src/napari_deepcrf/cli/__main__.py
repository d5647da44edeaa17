"""`python -m napari_deepcrf.cli` is the command `napari-deepcrf`."""

from napari_deepcrf.cli import main

main()
