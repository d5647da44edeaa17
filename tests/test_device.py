"""Choosing a device, with the GPU that this machine may lack played by a fake."""

from __future__ import annotations

import logging
import sys
import weakref
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


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("no room"),
        RuntimeError("Triton Error [CUDA]: out of memory"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("after cub: cudaErrorMemoryAllocation"),
    ],
    ids=str,
)
def test_out_of_memory_goes_on_on_the_cpu(monkeypatch, caplog, error):
    emptied = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: emptied.append(True))
    tried = []

    def work(device: torch.device) -> str:
        tried.append(device.type)
        if device.type == "cuda":
            raise error
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

    def unlaunched(device: torch.device) -> None:
        raise RuntimeError("CUDA error: invalid argument")

    with pytest.raises(ValueError, match="image: empty"):
        with_fallback(torch.device("cuda", 0), broken)
    with pytest.raises(RuntimeError, match="invalid argument"):
        with_fallback(torch.device("cuda", 0), unlaunched)


def test_a_job_leaves_neither_graphs_nor_cached_blocks(monkeypatch):
    released = []
    graphs = SimpleNamespace(release_graphs=lambda: released.append("graphs"))
    monkeypatch.setitem(sys.modules, "napari_deepcrf.lattice.triton_graph", graphs)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: released.append("cache"))
    monkeypatch.setattr(torch.mps, "empty_cache", lambda: released.append("mps"))
    release_memory(torch.device("cuda", 0))
    assert released == ["graphs", "cache"]
    release_memory(torch.device("mps"))
    assert released == ["graphs", "cache", "mps"]


def test_the_memory_of_a_failed_run_is_free_before_the_next(monkeypatch):
    class Activations:
        """Memory of a GPU."""

    alive: list[weakref.ref[Activations]] = []
    left = []
    monkeypatch.setattr(
        torch.cuda, "empty_cache", lambda: left.extend(r for r in alive if r() is not None)
    )

    def work(device: torch.device) -> str:
        own = Activations()
        own.cycle = own  # as a module's hooks may make one
        alive.append(weakref.ref(own))
        if device.type == "cuda":
            raise torch.OutOfMemoryError("no room")
        return "done"

    assert with_fallback(torch.device("cuda", 0), work) == "done"
    assert left == []


def test_tiles_come_before_the_cpu(monkeypatch, caplog):
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    tried = []

    def attempt(name: str, fitting: str):
        def work(device: torch.device) -> str:
            tried.append((name, device.type))
            if device.type != fitting:
                raise torch.OutOfMemoryError("no room")
            return name

        return work

    for fitting in ("cuda", "cpu"):
        tried.clear()
        with caplog.at_level(logging.WARNING):
            whole, tiles = attempt("whole", "nowhere"), attempt("tiles", fitting)
            assert with_fallback(torch.device("cuda", 0), whole, in_tiles=tiles) == "tiles"
        expected = [("whole", "cuda"), ("tiles", "cuda"), ("tiles", "cpu")]
        assert tried == expected[: 2 if fitting == "cuda" else 3]
    assert [record.message.rpartition("; ")[2] for record in caplog.records] == [
        "this image is done in tiles",
        "this image is done in tiles",
        "this image is done on the CPU",
    ]


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
    for device in (torch.device("cuda", 0), torch.device("cpu"), torch.device("mps")):
        network_precision(device)
    assert made == [
        (("cuda", dtype), {"enabled": True}),
        (("cpu", None), {"enabled": False}),
        (("mps", None), {"enabled": False}),
    ]


def test_a_gpu_that_is_taken_is_listed_all_the_same(two_gpus, monkeypatch):
    def taken(index: int) -> None:
        raise RuntimeError("CUDA error: out of memory")

    monkeypatch.setattr(torch.cuda, "mem_get_info", taken)
    assert describe_devices()[0] == DeviceInfo("cuda:0", "GPU 0, not free")
