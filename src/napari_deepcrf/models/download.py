"""Fetching a published file once, into the user's cache, checked by its hash."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """Where downloads are kept: ``$NAPARI_DEEPCRF_CACHE`` or the system's cache folder."""
    import pooch

    return Path(os.environ.get("NAPARI_DEEPCRF_CACHE") or pooch.os_cache("napari-deepcrf"))


def fetch(url: str, *, sha256: str, progress: bool = True) -> Path:
    """The local copy of ``url``, downloaded unless the cache holds it already.

    Raises ValueError where the content has another hash, and ConnectionError, naming the file to
    put into the cache by hand, where the address cannot be reached.
    """
    import pooch

    name = url.rsplit("/", 1)[-1]
    target = cache_folder() / name
    downloader = pooch.HTTPDownloader(progressbar=_Progress(name) if progress else False)
    try:
        return Path(
            pooch.retrieve(
                url,
                known_hash=f"sha256:{sha256}",
                fname=name,
                path=target.parent,
                downloader=downloader if url.startswith("http") else None,
            )
        )
    except ValueError as error:
        raise ValueError(f"{url}: expected SHA-256 {sha256}, got another file") from error
    except OSError as error:
        raise ConnectionError(
            f"{url}: cannot be reached ({type(error).__name__}); without a network, put the file "
            f"at {target}"
        ) from error


class _Progress:
    """Pooch's progress protocol (that of tqdm) on a rich progress bar."""

    def __init__(self, name: str) -> None:
        from rich.progress import DownloadColumn, Progress, TransferSpeedColumn

        self.total = 0
        self._bar = Progress(
            *Progress.get_default_columns(), DownloadColumn(), TransferSpeedColumn()
        )
        self._task = self._bar.add_task(name, total=None)
        self._bar.start()

    def update(self, count: int) -> None:
        """``count`` more bytes have arrived."""
        self._bar.update(self._task, advance=count, total=self.total or None)

    def reset(self) -> None:
        """Start again from nothing (pooch does so once, at the end)."""
        self._bar.update(self._task, completed=0)

    def close(self) -> None:
        """Take the bar down."""
        self._bar.stop()
