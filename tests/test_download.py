"""Published files from a server of this machine: checked, kept, resumed, one download for all."""

import errno
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import filelock
import pytest

from napari_deepcrf.download import fetch

CONTENT = bytes(range(256)) * 1200
DIGEST = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "my own cache – größer"
    monkeypatch.setenv("NAPARI_DEEPCRF_CACHE", str(folder))
    return folder


@pytest.fixture
def url(site):
    site.files["model.bin"] = CONTENT
    return f"{site.root}model.bin"


def test_a_download_is_checked_and_kept(cache, site, url):
    path = fetch(url, digest=DIGEST)
    assert path == cache / "model.bin"
    assert path.read_bytes() == CONTENT
    assert fetch(url, digest=DIGEST) == path
    assert site.ranges == [None]


def test_a_download_with_another_hash_is_refused(cache, url):
    with pytest.raises(ValueError, match="expected sha256 00"):
        fetch(url, digest=f"sha256:{'00' * 32}")
    assert [path.name for path in cache.iterdir()] == [".model.bin.lock"]


def test_a_kept_file_with_another_hash_is_downloaded_again(cache, url):
    cache.mkdir()
    (cache / "model.bin").write_bytes(b"an older one")
    assert fetch(url, digest=DIGEST).read_bytes() == CONTENT


def test_without_a_network_the_place_for_the_file_is_named(cache):
    with pytest.raises(ConnectionError, match=r"without a network, put the file at .*model\.bin"):
        fetch("http://127.0.0.1:9/model.bin", digest=DIGEST)


def test_a_file_that_is_not_there_is_told(cache, site):
    with pytest.raises(ConnectionError, match=r"nothing\.bin: cannot be reached .*HTTPError"):
        fetch(f"{site.root}nothing.bin", digest=DIGEST)


@pytest.mark.parametrize("ignores_ranges", [False, True])
def test_a_dropped_connection_goes_on(cache, site, url, ignores_ranges):
    site.cut_after = 200_000
    with pytest.raises(ConnectionError, match="broke off"):
        fetch(url, digest=DIGEST)
    part = cache / "model.bin.part"
    arrived = part.stat().st_size
    assert 100_000 < arrived <= 200_000
    assert not (cache / "model.bin").exists()
    site.ignores_ranges = ignores_ranges
    assert fetch(url, digest=DIGEST).read_bytes() == CONTENT
    assert site.ranges == [None, f"bytes={arrived}-"]
    assert not part.exists()


def test_a_part_of_something_else_is_not_kept(cache, url):
    cache.mkdir()
    (cache / "model.bin.part").write_bytes(b"something else")
    with pytest.raises(ValueError, match="got another file"):
        fetch(url, digest=DIGEST)
    assert fetch(url, digest=DIGEST).read_bytes() == CONTENT


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a disk that is full")
def test_a_full_disk_is_told_and_survived(cache, url):
    cache.mkdir()
    (cache / "model.bin.part").symlink_to("/dev/full")
    with pytest.raises(OSError, match=r"model\.bin: cannot be written \(No space left") as caught:
        fetch(url, digest=DIGEST)
    assert caught.value.errno == errno.ENOSPC
    (cache / "model.bin.part").unlink()
    assert fetch(url, digest=DIGEST).read_bytes() == CONTENT


def test_a_folder_that_cannot_be_made_is_told(tmp_path, monkeypatch, url):
    (tmp_path / "file").touch()
    monkeypatch.setenv("NAPARI_DEEPCRF_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(OSError, match=r"cannot be written .* NAPARI_DEEPCRF_CACHE names another"):
        fetch(url, digest=DIGEST)


def test_a_kept_file_needs_no_folder_to_write_to(cache, site, url, monkeypatch):
    path = fetch(url, digest=DIGEST)

    def refuse(*_, **__):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(filelock.FileLock, "acquire", refuse)
    assert fetch(url, digest=DIGEST) == path
    with pytest.raises(OSError, match="Read-only file system"):
        fetch(f"{url}?other", digest=DIGEST)


def test_processes_that_ask_at_once_share_one_download(cache, site, url):
    program = f"from napari_deepcrf.download import fetch; print(fetch({url!r}, digest={DIGEST!r}))"
    command = [sys.executable, "-c", program]
    children = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    answers = [child.communicate(timeout=120)[0].strip() for child in children]
    assert answers == [str(cache / "model.bin")] * 3
    assert [child.returncode for child in children] == [0, 0, 0]
    assert site.ranges == [None]
    assert (cache / "model.bin").read_bytes() == CONTENT
