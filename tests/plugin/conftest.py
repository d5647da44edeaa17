"""The plugin in a real viewer, opened through napari's manifest, with a small random model."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from qtpy.QtWidgets import QApplication

from napari_deepcrf.crf import CRFParameters, DenseCRF
from napari_deepcrf.models import DeepCRF
from napari_deepcrf.models.unary import UnaryNetwork
from napari_deepcrf.models.vgg16 import VGG16

CLASSES = ("background", "cat", "dog", "person")
MANY_OBJECTS = 100_000
"""Fewer are no libraries: Python itself sets some hundreds apart."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "make_napari_viewer" in getattr(item, "fixturenames", ()):
            item.add_marker("gui")


def wait_until(condition: Callable[[], Any], timeout: float = 300) -> None:
    """Let the event loop work until the condition holds.

    The limit only ends what hangs: a machine may be crowded, its kernels not compiled yet.
    """
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, "nothing happened in time"
        QApplication.processEvents()
        time.sleep(0.002)


def settle(seconds: float = 0.1) -> None:
    """Let the event loop work for a while."""
    end = time.monotonic() + seconds
    wait_until(lambda: time.monotonic() > end)


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Small problems gain nothing from threads, which only contend on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def collections(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spare garbage collections what lasts, once for the whole suite and not by every dock."""
    import napari.qt  # noqa: F401 - the first viewer and the first segmentation load it else
    import numba  # noqa: F401

    from napari_deepcrf.plugin import garbage

    if gc.get_freeze_count() < MANY_OBJECTS:
        gc.collect()
        gc.freeze()
    monkeypatch.setattr(garbage, "set_apart", lambda **_: None)
    monkeypatch.setattr(garbage, "join_again", lambda: None)


@pytest.fixture(scope="session")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    network = UnaryNetwork(VGG16(len(CLASSES), width=1 / 32, head="smallfov"), input_size=65)
    for parameter in network.parameters():
        parameter.data *= 2.0
    crf = DenseCRF(CRFParameters(theta_alpha=20, theta_beta=15), iterations=3)
    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    DeepCRF(network, crf, CLASSES, name="tiny").eval().save(path)
    return path


@pytest.fixture(name="wait_until")
def wait_until_fixture() -> Callable[..., None]:
    return wait_until


@pytest.fixture(name="settle")
def settle_fixture() -> Callable[..., None]:
    return settle


@dataclass
class App:
    """A viewer, the dock in it, and what tests do to them."""

    viewer: Any
    dock: Any

    def segment(self) -> Any:
        """Press Segment and wait for the layers; the result."""
        return self.after(self.dock.source_panel.segment.click)

    def after(self, action: Callable[[], object]) -> Any:
        """The result that is shown after an action, once nothing runs any more."""
        shown: list[Any] = []
        self.dock.segmenting.shown.connect(shown.append)
        action()
        wait_until(lambda: shown)
        self.idle()
        self.dock.segmenting.shown.disconnect(shown.append)
        return shown[-1]

    def idle(self) -> None:
        """Wait until no job runs and no timer of the dock waits."""
        dock = self.dock
        parts = (dock.segmenting, dock.annotating, dock.training)
        wait_until(lambda: not dock.runner.is_busy() and not any(p.is_waiting for p in parts))

    def layer(self, role: str) -> Any:
        """The result layer of a role."""
        return self.dock.result_layers[role]


@pytest.fixture
def open_app(
    make_napari_viewer: Any,
    collections: None,
    model_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> Iterator[Callable[..., App]]:
    from napari_deepcrf.plugin import preferences, segmenting, tiling

    kept = {"model": str(model_file), "device": "cpu", "live": False}
    monkeypatch.setattr(preferences, "recall", kept.__getitem__)
    monkeypatch.setattr(preferences, "remember", kept.__setitem__)
    monkeypatch.setattr(segmenting, "MEASURE_AFTER_MS", 20)
    monkeypatch.setattr(tiling, "HOME_FOLDER", tmp_path / "labels of images from nowhere")

    def open_one(*arrays: np.ndarray, show: bool = False, **layer_kwargs: Any) -> App:
        viewer = make_napari_viewer(show=show)
        for array in arrays:
            viewer.add_image(array, name="photo", **layer_kwargs)
        _, dock = viewer.window.add_plugin_dock_widget("napari-deepcrf", "DeepCRF")
        app = App(viewer, dock)
        wait_until(lambda: dock.session.model is not None)
        app.idle()
        return app

    yield open_one
    settle(0.05)


@pytest.fixture
def photo() -> np.ndarray:
    """61×83 RGB with smooth regions and noise."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:61, :83]
    base = np.stack([y * 3, x * 2, 200 - y - x], -1).clip(0, 255)
    base[20:45, 25:60] = (220, 60, 40)
    return (base + rng.normal(scale=6, size=base.shape)).clip(0, 255).astype(np.uint8)
