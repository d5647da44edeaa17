"""Published files: fetched once, kept by their hash; tests/data/test_published resumes them."""

import hashlib
import io

import pytest
import requests

from napari_deepcrf.download import fetch


@pytest.fixture
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setenv("NAPARI_DEEPCRF_CACHE", str(folder))
    return folder


def serve(monkeypatch, content: bytes) -> list[str]:
    """Let pooch's HTTP downloader find ``content`` at every address."""
    asked = []

    class Response(io.BytesIO):
        headers = {"content-length": str(len(content))}  # noqa: RUF012
        status_code = 200

        def raise_for_status(self):
            pass

        def iter_content(self, chunk_size):
            yield content

    def get(url, **_):
        asked.append(url)
        return Response(content)

    monkeypatch.setattr(requests, "get", get)
    return asked


def test_a_download_is_checked_and_kept(cache, monkeypatch):
    content = b"weights" * 100
    digest = hashlib.sha256(content).hexdigest()
    asked = serve(monkeypatch, content)
    path = fetch("https://example.org/model.bin", digest=f"sha256:{digest}")
    assert path == cache / "model.bin"
    assert path.read_bytes() == content
    assert fetch("https://example.org/model.bin", digest=f"sha256:{digest}") == path
    assert len(asked) == 1


def test_a_download_with_another_hash_is_refused(cache, monkeypatch):
    serve(monkeypatch, b"something else")
    with pytest.raises(ValueError, match="expected sha256 00"):
        fetch("https://example.org/model.bin", digest=f"sha256:{'00' * 32}")
    assert not (cache / "model.bin").exists()


def test_without_a_network_the_place_for_the_file_is_named(cache, monkeypatch):
    def get(url, **_):
        raise requests.ConnectionError

    monkeypatch.setattr(requests, "get", get)
    with pytest.raises(ConnectionError, match=r"without a network, put the file at .*model\.bin"):
        fetch("https://example.org/model.bin", digest=f"sha256:{'00' * 32}")
