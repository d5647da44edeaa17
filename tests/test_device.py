"""Choosing a device, with the GPU that this machine may lack played by a fake."""

from __future__ import annotations

import logging
import sys
from types import SimpleNamespace

import pytest
import torch

from napari_deepcrf.device import (
    DeviceInfo,
    describe_devices,
    network_precision,
    release_memory,
    resolve_device,
    with_fallback,
)


@pytest.fixture
def two_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: f"GPU {index}")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda index: (3 * 2**29, 8 * 2**30))


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


def test_auto_is_the_gpu_where_there_is_one(two_gpus):
    assert resolve_device() == resolve_device("cuda") == torch.device("cuda", 0)
    assert resolve_device("cuda:1") == torch.device("cuda", 1)
    assert resolve_device("cpu") == torch.device("cpu")


def test_auto_is_the_cpu_elsewhere(no_gpu):
    assert resolve_device("auto") == torch.device("cpu")


@pytest.mark.parametrize("name", ["tpu", "gpu 0", "", "cuda:x", "meta", "xla"])
def test_other_names_are_refused(name):
    with pytest.raises(ValueError, match="device: expected auto, cpu, cuda"):
        resolve_device(name)


def test_devices_that_are_not_there_are_refused(two_gpus):
    with pytest.raises(ValueError, match="device: cuda:2 is not there, 2 CUDA GPUs are"):
        resolve_device("cuda:2")


@pytest.mark.parametrize("name", ["cuda", "mps"])
def test_a_missing_gpu_is_refused_in_one_line(no_gpu, name):
    with pytest.raises(ValueError, match=f"^device: {name} is not there.*use auto or cpu$"):
        resolve_device(name)


def test_devices_are_listed_best_first(two_gpus):
    first, second, *_, last = describe_devices()
    assert first == DeviceInfo("cuda:0", "GPU 0, 1.5 of 8.0 GiB free")
    assert second.name == "cuda:1"
    assert last.name == "cpu"
    assert last.description.startswith("CPU, ")


def test_out_of_memory_goes_on_on_the_cpu(monkeypatch, caplog):
    emptied = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: emptied.append(True))
    tried = []

    def work(device: torch.device) -> str:
        tried.append(device.type)
        if device.type == "cuda":
            raise torch.OutOfMemoryError("no room")
        return "done"

    with caplog.at_level(logging.WARNING):
        assert with_fallback(torch.device("cuda", 0), work) == "done"
    assert tried == ["cuda", "cpu"]
    assert emptied == [True]
    assert [record.message for record in caplog.records] == [
        "cuda:0 ran out of memory; this image is done on the CPU"
    ]


def test_other_errors_and_a_full_cpu_are_not_hidden():
    def full(device: torch.device) -> None:
        raise torch.OutOfMemoryError("no room")

    def broken(device: torch.device) -> None:
        raise ValueError("image: empty")

    with pytest.raises(torch.OutOfMemoryError):
        with_fallback(torch.device("cpu"), full)
    with pytest.raises(ValueError, match="image: empty"):
        with_fallback(torch.device("cuda", 0), broken)


def test_graphs_are_kept_unless_everything_is_released(monkeypatch):
    released = []
    graphs = SimpleNamespace(release_graphs=lambda: released.append("graphs"))
    monkeypatch.setitem(sys.modules, "napari_deepcrf.lattice.triton_graph", graphs)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: released.append("cache"))
    release_memory(torch.device("cuda", 0))
    assert released == ["cache"]
    release_memory(torch.device("cuda", 0), everything=True)
    assert released == ["cache", "graphs", "cache"]


def test_nothing_is_released_on_the_cpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: pytest.fail("touched the GPU"))
    release_memory(torch.device("cpu"))


@pytest.mark.parametrize(
    ("capability", "dtype"), [((9, 0), torch.bfloat16), ((7, 5), torch.float16)]
)
def test_networks_run_in_half_precision_on_gpus_alone(monkeypatch, capability, dtype):
    made = []
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch, "autocast", lambda *args, **kwargs: made.append((args, kwargs)))
    network_precision(torch.device("cuda", 0))
    network_precision(torch.device("cpu"))
    assert made == [(("cuda", dtype), {}), (("cpu",), {"enabled": False})]
