"""Kernels are compiled once per machine, and only a warm-up that ended counts."""

from pathlib import Path

import pytest

from napari_deepcrf.crf import warm_up as kernels
from napari_deepcrf.session.warm_up import LABELS, kernels_are_cached, run_kernels


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NAPARI_DEEPCRF_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_warm_up_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[int] = []
    monkeypatch.setattr(kernels, "warm_up", compiled.append)
    assert not kernels_are_cached()
    run_kernels()
    assert compiled == list(LABELS)
    assert kernels_are_cached()


def test_other_cache_folders_are_warmed_up_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "warm_up", lambda labels: None)
    run_kernels()
    monkeypatch.setenv("NUMBA_CACHE_DIR", "/elsewhere")
    assert not kernels_are_cached()


def test_a_warm_up_that_broke_off_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(labels: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(kernels, "warm_up", killed)
    with pytest.raises(KeyboardInterrupt):
        run_kernels()
    assert not kernels_are_cached()


def test_a_cache_that_cannot_be_written_stops_nothing(
    cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cache.write_text("a file where the folder should be")
    monkeypatch.setattr(kernels, "warm_up", lambda labels: None)
    run_kernels()
    assert not kernels_are_cached()
    assert str(cache) in capsys.readouterr().err
