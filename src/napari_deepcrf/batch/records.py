"""The folder of a run's results, and a small record of what each was made from."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from napari_deepcrf.atomic import atomic_write
from napari_deepcrf.batch.formats import Files, Format
from napari_deepcrf.digests import digest_path

RECORDS = ".deepcrf"
"""The folder, inside that of the results, with a JSON file for each of them."""
LEFT_SECONDS = 60
"""An unfinished file that is older was left by a killed process: writing one takes far less."""
_LEFT = re.compile(r"\.(.+)\.[a-z0-9_]{8}\.part")


@dataclass(frozen=True, kw_only=True)
class Record:
    """What a result was made from, and how to tell that it is still as it was made."""

    image: str
    """Absolute path of the image."""
    image_sha256: str
    """Of the image file's bytes, or `digest_path` of a Zarr folder."""
    model_sha256: str
    """Of the network's weights and all parameters, the CRF's among them."""
    size: tuple[int, int]
    """(H, W)."""
    areas: dict[str, int]
    """Pixels of every class."""
    sha256: str
    """`digest` of the result's files."""
    replaces: str | None
    """`digest` of the earlier result that this one takes the place of."""

    def made_from(self, image_sha256: str, model_sha256: str) -> bool:
        """Whether the result is that of these bytes and this model."""
        return (self.image_sha256, self.model_sha256) == (image_sha256, model_sha256)


class ResultFolder:
    """Writes results that appear whole or not at all, and replaces no others.

    A result's record is written first. Whatever lies at a result's place and is neither what its
    record says nor what that was to replace was put there or edited by somebody else, and stays.

    Parameters
    ----------
    folder
        Made where it is not there; OSError in one line where that is impossible.
    kind
        The format of the results.
    overwrite
        Replace what others have put at a result's place, too.
    """

    def __init__(self, folder: Path, kind: Format, *, overwrite: bool = False) -> None:
        self.folder, self.kind, self._overwrite = folder, kind, overwrite
        if folder.exists() and not folder.is_dir():
            raise NotADirectoryError(f"out: expected a folder for the results, got a file {folder}")
        try:
            (folder / RECORDS).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OSError(f"out: {folder} cannot be written to: {error.strerror}") from error
        self._sweep()

    def _sweep(self) -> None:
        """Remove what processes left that were killed while they wrote."""
        endings = (self.kind.suffix, ".json", ".csv")
        for path in self.folder.rglob(".*.part"):
            left = _LEFT.fullmatch(path.name)
            with suppress(FileNotFoundError):  # another run's, which was just written
                if left and left[1].endswith(endings) and _age(path) > LEFT_SECONDS:
                    _remove(path)

    def place(self, name: str) -> Path:
        """Where the result of this name lies."""
        return self.folder / f"{name}{self.kind.suffix}"

    def finished(self, name: str, image_sha256: str, model_sha256: str) -> Record | None:
        """The record of a result that is there as it was made from just these."""
        record = self._record(self._record_place(name))
        if record is None or not record.made_from(image_sha256, model_sha256):
            return None
        return record if digest_path(self.place(name)) == record.sha256 else None

    def check_free(self, name: str, image: Path, image_sha256: str) -> None:
        """Raise FileExistsError where the result would replace what is not this image's."""
        place = self.place(name)
        present = None if self._overwrite else digest_path(place)
        if present is None:
            return
        record = self._record(self._record_place(name))
        if record is None or present not in (record.sha256, record.replaces):
            raise FileExistsError(
                f"{place}: expected no file or an earlier result, got another or an edited one, "
                "which stays"
            )
        if str(image.resolve()) != record.image and image_sha256 != record.image_sha256:
            raise FileExistsError(f"{place}: is the result of {record.image}, and stays")

    def write(self, name: str, files: Files, record: Record) -> None:
        """Put the record, then the result in its place; OSError leaves what was there."""
        place = self.place(name)
        place.parent.mkdir(parents=True, exist_ok=True)
        self.note(name, record)
        if "" in files:
            with atomic_write(place) as stream:
                stream.write(files[""])
        else:
            _write_folder(place, files)

    def note(self, name: str, record: Record) -> None:
        """Write the record alone, of a result that is there already."""
        place = self._record_place(name)
        place.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(place) as stream:
            stream.write(json.dumps(asdict(record), indent=1).encode())

    def has_record(self, name: str) -> bool:
        """Whether a run has put a result of this name here."""
        return self._record(self._record_place(name)) is not None

    def present(self, name: str) -> str | None:
        """`digest` of what lies at the result's place now, None for nothing."""
        return digest_path(self.place(name))

    def records(self) -> Iterator[tuple[str, Record]]:
        """Every result of the folder by its path in it, whichever run made it, in order."""
        root = self.folder / RECORDS
        for path in sorted(root.rglob("*.json")):
            result = path.relative_to(root).with_suffix("")
            record = self._record(path)
            if record is not None and (self.folder / result).exists():
                yield result.as_posix(), record

    def _record_place(self, name: str) -> Path:
        return self.folder / RECORDS / f"{name}{self.kind.suffix}.json"

    def _record(self, path: Path) -> Record | None:
        try:
            content = json.loads(path.read_bytes())
            areas = {str(name): int(count) for name, count in content["areas"].items()}
            height, width = map(int, content["size"])
            return Record(**{**content, "size": (height, width), "areas": areas})
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return None  # a damaged record protects what lies at the result's place


def _write_folder(place: Path, files: Files) -> None:
    """A folder that appears whole; the earlier one goes once it has, and comes back otherwise."""
    made, earlier = (
        Path(tempfile.mkdtemp(dir=place.parent, prefix=f".{place.name}.", suffix=".part"))
        for _ in range(2)
    )
    try:
        for name, content in files.items():
            path = made / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(path) as stream:
                stream.write(content)
        made.chmod(place.parent.stat().st_mode & 0o777)
        with suppress(FileNotFoundError):
            place.rename(earlier / place.name)
        made.rename(place)
    except BaseException:
        if not place.exists() and (earlier / place.name).exists():
            os.rename(earlier / place.name, place)
        raise
    finally:
        for folder in (made, earlier):
            shutil.rmtree(folder, ignore_errors=True)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _age(path: Path) -> float:
    """Seconds since the file was last written."""
    return time.time() - path.stat().st_mtime
