"""Fetching published files once, by their hash; a download that broke off goes on."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

_CHUNK = 1 << 16
_TIMEOUT_S = 60


def cache_folder() -> Path:
    """Where downloads are kept: ``$NAPARI_DEEPCRF_CACHE`` or the system's cache folder."""
    import pooch

    return Path(os.environ.get("NAPARI_DEEPCRF_CACHE") or pooch.os_cache("napari-deepcrf"))


def fetch(
    url: str, *, digest: str, folder: Path | str | None = None, progress: bool = True
) -> Path:
    """The local copy of ``url``, downloaded unless it is there already.

    What has arrived of a download that breaks off stays beside it as ``NAME.part``, and the next
    call goes on from there. Of several processes that ask at once, one downloads and the others
    wait for it.

    Parameters
    ----------
    digest
        ``"sha256:…"`` or ``"md5:…"`` of the content.
    folder
        Where to keep it; by default `cache_folder`.

    Raises
    ------
    ValueError
        The content has another hash; it is not kept.
    ConnectionError
        The address cannot be reached; the message names the place for a file got by hand.
    OSError
        The folder cannot be written to, or the disk is full; what has arrived stays.
    """
    import requests
    from filelock import FileLock

    name = url.rsplit("/", 1)[-1]
    target = (cache_folder() if folder is None else Path(folder)) / name
    if target.is_file() and has_digest(target, digest):
        return target  # asks nothing of the folder, which may be read-only
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(target.with_name(f".{name}.lock")):
            return _retrieve(url, digest, target, progress)
    except ValueError as error:
        kind, _, value = digest.partition(":")
        raise ValueError(f"{url}: expected {kind} {value}, got another file") from error
    except (requests.RequestException, ConnectionError) as error:
        raise ConnectionError(
            f"{url}: cannot be reached or broke off ({type(error).__name__}); another attempt goes "
            f"on from there; without a network, put the file at {target}"
        ) from error
    except OSError as error:
        raise OSError(
            error.errno,
            f"{target}: cannot be written ({error.strerror or error}); another attempt goes on "
            "from what has arrived, NAPARI_DEEPCRF_CACHE names another folder",
        ) from error


def has_digest(path: Path, digest: str) -> bool:
    """Whether a file's content has a hash, ``"sha256:…"`` or ``"md5:…"``."""
    kind, _, value = digest.partition(":")
    with path.open("rb") as file:
        return hashlib.file_digest(file, kind).hexdigest() == value.lower()


def _retrieve(url: str, digest: str, target: Path, progress: bool) -> Path:
    import pooch

    downloader = _ResumingDownloader(target.with_name(f"{target.name}.part"), progress)
    return Path(
        pooch.retrieve(
            url,
            known_hash=digest,
            fname=target.name,
            path=target.parent,
            downloader=downloader if url.startswith("http") else None,
        )
    )


class _ResumingDownloader:
    """What pooch calls to download: (address, file to write, itself)."""

    def __init__(self, part: Path, progress: bool) -> None:
        self._part, self._progress = part, progress

    def __call__(self, url: str, output_file: str, _: Any) -> None:
        import requests

        start = self._part.stat().st_size if self._part.is_file() else 0
        headers = {"Accept-Encoding": "identity"}
        if start:
            headers["Range"] = f"bytes={start}-"
        with requests.get(url, headers=headers, stream=True, timeout=_TIMEOUT_S) as response:
            # 416: nothing is left to send; whether that is the whole file its hash will tell.
            if not (start and response.status_code == requests.codes.range_not_satisfiable):
                response.raise_for_status()
                if response.status_code != requests.codes.partial_content:
                    start = 0
                self._receive(response, start)
        os.replace(self._part, output_file)

    def _receive(self, response: Any, start: int) -> None:
        total = start + int(response.headers.get("content-length", 0))
        name = self._part.name.removesuffix(".part")
        with (
            self._part.open("r+b" if start else "wb") as file,
            Transfer(name, total, shown=self._progress) as transfer,
        ):
            file.seek(start)
            transfer.advance(start)
            for chunk in response.iter_content(chunk_size=_CHUNK):
                file.write(chunk)
                transfer.advance(len(chunk))
            received = file.tell()
        if total > start and received != total:
            raise ConnectionError(f"{received} of {total} bytes")


class Transfer:
    """A progress bar in bytes on stderr, where that is a terminal; a context manager."""

    def __init__(self, name: str, total: int, *, shown: bool = True) -> None:
        from rich.console import Console
        from rich.progress import DownloadColumn, Progress, TransferSpeedColumn

        console = Console(stderr=True)
        self._bar = Progress(
            *Progress.get_default_columns(),
            DownloadColumn(),
            TransferSpeedColumn(),
            console=console,
            transient=True,
            disable=not (shown and console.is_terminal),
        )
        self._task = self._bar.add_task(name, total=total or None)

    def __enter__(self) -> Transfer:
        self._bar.start()
        return self

    def advance(self, count: int) -> None:
        """``count`` more bytes are done."""
        self._bar.update(self._task, advance=count)

    def __exit__(self, *_: object) -> None:
        self._bar.stop()
