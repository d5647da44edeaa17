"""`napari-deepcrf data`."""

from pathlib import Path
from typing import Annotated

import typer


def data(
    names: Annotated[
        list[str] | None, typer.Argument(help="voc2012, sbd; by default both.", show_default=False)
    ] = None,
    *,
    to: Annotated[Path, typer.Option(help="Folder for the archives and the data.")],
) -> None:
    """Download PASCAL VOC 2012 (2.0 GB) and SBD (1.4 GB), check their hashes and unpack them.

    What breaks off goes on with the same command. Then `train --data TO` finds the lists train,
    trainval and val, and with both datasets train_aug.
    """
    from napari_deepcrf.data.published import PUBLISHED, obtain

    unknown = sorted(set(names or ()) - PUBLISHED.keys())
    if unknown:
        raise ValueError(f"names: expected {' or '.join(PUBLISHED)}, got {unknown[0]!r}")
    for name in names or PUBLISHED:
        print(obtain(PUBLISHED[name], to))
