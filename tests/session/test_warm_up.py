"""Kernels are compiled once per machine, and only a warm-up that ended counts."""

import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from napari_deepcrf.crf import warm_up as kernels
from napari_deepcrf.session import warm_up
from napari_deepcrf.session.events import Progress
from napari_deepcrf.session.warm_up import (
    FIRST,
    LABELS,
    compile_missing,
    first_kernels_are_cached,
    kernels_are_cached,
    run_first_kernels,
    run_kernels,
)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NAPARI_DEEPCRF_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_warm_up_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[int] = []
    monkeypatch.setattr(kernels, "warm_up", lambda labels, channels: compiled.append(labels))
    assert not kernels_are_cached()
    run_kernels()
    assert compiled == list(LABELS)
    assert kernels_are_cached()


def test_other_cache_folders_are_warmed_up_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "warm_up", lambda labels, channels: None)
    run_kernels()
    monkeypatch.setenv("NUMBA_CACHE_DIR", "/elsewhere")
    assert not kernels_are_cached()


def test_another_machine_and_other_sources_are_warmed_up_anew(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(kernels, "warm_up", lambda labels, channels: None)
    run_kernels()
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(warm_up.platform, "node", lambda: "another machine")
        assert not kernels_are_cached()
    assert kernels_are_cached()
    package = tmp_path / "napari_deepcrf"
    (package / "crf").mkdir(parents=True)
    monkeypatch.setattr(warm_up.napari_deepcrf, "__file__", str(package / "__init__.py"))
    run_kernels()
    assert kernels_are_cached()
    (package / "crf" / "mean_field.py").write_text("changed = True\n")
    assert not kernels_are_cached()


def test_a_warm_up_that_broke_off_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(labels: int, channels: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(kernels, "warm_up", killed)
    with pytest.raises(KeyboardInterrupt):
        run_kernels()
    assert not kernels_are_cached()


def test_a_cache_that_cannot_be_written_stops_nothing(
    cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cache.write_text("a file where the folder should be")
    monkeypatch.setattr(kernels, "warm_up", lambda labels, channels: None)
    run_kernels()
    assert not kernels_are_cached()
    assert str(cache) in capsys.readouterr().err


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What other processes were asked for; each of them ends soon, having done nothing."""
    asked: list[list[str]] = []
    start = warm_up.subprocess.Popen

    def popen(command: Sequence[str], **options: Any) -> Any:
        asked.append(list(command[1:]))
        return start([sys.executable, "-c", "import time; time.sleep(0.3)"], **options)

    monkeypatch.setattr(warm_up.subprocess, "Popen", popen)
    monkeypatch.setattr(warm_up, "_asked_for", set())
    return asked


def in_a_worker(
    labels: int, channels: int, device: str = "cpu", *, segmenting: bool = False
) -> list[Any]:
    events: list[Any] = []
    worker = threading.Thread(
        target=lambda: events.extend(
            compile_missing(labels, channels, device, segmenting=segmenting)
        )
    )
    worker.start()
    worker.join()
    return events


def test_unusual_kernels_are_compiled_apart_and_once(commands: list[list[str]]) -> None:
    events = in_a_worker(30, 5)
    assert "30 classes, 5 channels" in events[0].text
    assert all(isinstance(event, Progress) for event in events)
    assert in_a_worker(32, 5) == []
    assert commands == [["-m", "napari_deepcrf.session.warm_up", "32", "5"]]


def test_usual_kernels_are_there_after_the_warm_up(
    commands: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernels, "warm_up", lambda labels, channels: None)
    run_kernels()
    for labels in (2, 4, 7, 12, 21, 24):
        assert in_a_worker(labels, 3) == []
    assert in_a_worker(30, 5, "cuda") == []
    assert list(compile_missing(30, 5, "cpu")) == []  # the main thread
    assert not commands


def test_a_first_segmentation_needs_the_first_kernels_alone(
    commands: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[int] = []
    monkeypatch.setattr(
        kernels, "warm_up_segmenting", lambda labels, channels: compiled.append(labels)
    )
    assert not first_kernels_are_cached()
    run_first_kernels()
    assert compiled == [FIRST]
    assert first_kernels_are_cached()
    assert not kernels_are_cached((FIRST,))
    assert in_a_worker(FIRST, 3, segmenting=True) == []
    assert not commands
    assert in_a_worker(FIRST, 3)  # all gradients and the quality "accurate"
    assert in_a_worker(2, 3, segmenting=True)
    assert [command[2:] for command in commands] == [["24", "3"], ["4", "3"]]


def test_kernels_of_an_earlier_session_are_there(
    commands: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernels, "warm_up", lambda labels, channels: None)
    run_kernels((32,), 5)
    assert in_a_worker(26, 5) == []
    assert in_a_worker(26, 4)
    assert commands == [["-m", "napari_deepcrf.session.warm_up", "32", "4"]]


def test_a_cancelled_compilation_is_asked_for_again(commands: list[list[str]]) -> None:
    def cancelled() -> None:
        steps = compile_missing(30, 5, "cpu")
        next(steps)
        steps.close()

    for _ in range(2):
        worker = threading.Thread(target=cancelled)
        worker.start()
        worker.join()
    assert len(commands) == 2
