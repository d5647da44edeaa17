"""VOC 2012 and SBD as their authors publish them: downloaded, checked, and unpacked whole."""

from __future__ import annotations

import os
import shutil
import tarfile
import tempfile
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from napari_deepcrf.download import Transfer, fetch
from napari_deepcrf.messages import first_line

_CHUNK = 1 << 20


@dataclass(frozen=True)
class PublishedDataset:
    """An archive on the web, and what of it is needed."""

    name: str
    url: str
    digest: str
    """``"md5:…"`` of the archive."""
    folder: str
    """The folder of the archive that holds the data."""


PUBLISHED = {
    dataset.name: dataset
    for dataset in (
        PublishedDataset(
            name="voc2012",
            url="http://host.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar",
            digest="md5:6cd6e144f989b92b3379bac3b3de84fd",
            folder="VOCdevkit/VOC2012",
        ),
        PublishedDataset(
            name="sbd",
            url="http://www.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/"
            "semantic_contours/benchmark.tgz",
            digest="md5:82b4d87ceb2ed10f6038a1cba92111cb",
            folder="benchmark_RELEASE/dataset",
        ),
    )
}


def obtain(dataset: PublishedDataset, folder: Path | str, *, progress: bool = True) -> Path:
    """The unpacked dataset's folder under ``folder``, downloaded and unpacked if it is not there.

    An archive that lies in ``folder`` already is used; a download that broke off goes on. The
    data's folder appears whole or not at all.

    Raises
    ------
    ValueError
        The archive has another hash, is damaged, or a member would lie outside the folder.
    ConnectionError
        The address cannot be reached; the message says where to put an archive got by hand.
    """
    folder = Path(folder)
    target = folder / dataset.folder
    if not target.is_dir():
        archive = fetch(dataset.url, digest=dataset.digest, folder=folder, progress=progress)
        _unpack(archive, dataset.folder, target, progress)
    return target


def _unpack(archive: Path, prefix: str, target: Path, progress: bool) -> None:
    """Unpack the archive's folder ``prefix``, which becomes ``target`` once it is whole."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as temporary:
        whole = Path(temporary) / target.name
        try:
            with (
                archive.open("rb") as file,
                Transfer(
                    f"unpacking {archive.name}", archive.stat().st_size, shown=progress
                ) as transfer,
                tarfile.open(fileobj=file) as tar,
            ):
                done = 0
                for member in tar:
                    _unpack_member(tar, member, prefix, whole)
                    transfer.advance(file.tell() - done)
                    done = file.tell()
        except (tarfile.TarError, EOFError, OSError, ValueError, zlib.error) as error:
            reason = first_line(error).rstrip(":")
            raise ValueError(f"{archive}: cannot be unpacked ({reason})") from error
        if not whole.is_dir():
            raise ValueError(f"{archive}: expected a folder {prefix}, found none")
        try:
            os.replace(whole, target)
        except OSError:
            if not target.is_dir():  # else another process was quicker
                raise


def _unpack_member(tar: tarfile.TarFile, member: tarfile.TarInfo, prefix: str, whole: Path) -> None:
    """Write a file of the folder ``prefix``; links and devices, which no dataset needs, are not."""
    path = PurePosixPath(member.name)
    if path.is_absolute() or ".." in path.parts:
        raise ValueError(f"member {member.name!r} would lie outside the dataset's folder")
    path = PurePosixPath(*(part for part in path.parts if part != "."))
    if not member.isfile() or not path.is_relative_to(prefix):
        return
    target = whole / path.relative_to(prefix)
    target.parent.mkdir(parents=True, exist_ok=True)
    source: IO[bytes] | None = tar.extractfile(member)
    assert source is not None
    with source, target.open("wb") as file:
        shutil.copyfileobj(source, file, _CHUNK)
