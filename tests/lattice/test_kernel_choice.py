"""Which kernels ``"auto"`` stands for."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest
import torch

from napari_deepcrf.lattice import kernels

CUDA = torch.device("cuda")


@pytest.fixture(autouse=True)
def untried():
    kernels._try_triton.cache_clear()
    yield
    kernels._try_triton.cache_clear()


def pretend(monkeypatch, try_out) -> None:
    monkeypatch.setattr(
        kernels.importlib, "import_module", lambda name: SimpleNamespace(try_out=try_out)
    )


def fail(error: Exception):
    def try_out() -> None:
        raise error

    return try_out


def test_cuda_takes_triton_where_it_works(monkeypatch):
    pretend(monkeypatch, lambda: None)
    assert kernels.resolve_backend("auto", CUDA, torch.float32) == "triton"
    assert kernels.resolve_backend("auto", CUDA, torch.float64) == "torch"


@pytest.mark.parametrize(
    "error",
    [ImportError("No module named 'triton'"), RuntimeError("Failed to find C compiler.\nmore")],
)
def test_cuda_without_triton_is_told_once(monkeypatch, caplog, error):
    pretend(monkeypatch, fail(error))
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert kernels.resolve_backend("auto", CUDA, torch.float32) == "torch"
    (record,) = caplog.records
    first_line = str(error).partition("\n")[0]
    assert record.message == (
        f"Triton is not used, the GPU runs plain PyTorch operations: {first_line}"
    )
    assert kernels.triton_problem() == record.message


def test_a_full_gpu_says_nothing_about_triton(monkeypatch, caplog):
    pretend(monkeypatch, fail(torch.OutOfMemoryError("no room")))
    assert kernels.triton_problem() == ""
    pretend(monkeypatch, fail(RuntimeError("Failed to find C compiler.")))
    assert "C compiler" in kernels.triton_problem()


def test_other_devices_take_the_reference_and_are_told_once(caplog):
    kernels._tell_of_plain_operations.cache_clear()
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert kernels.resolve_backend("auto", torch.device("mps"), torch.float32) == "torch"
    assert [record.message for record in caplog.records] == [
        "There are no lattice kernels for mps, it runs plain PyTorch operations"
    ]


def test_unknown_backends_are_refused():
    with pytest.raises(ValueError, match="backend: expected one of auto, torch, numba, triton"):
        kernels.resolve_backend("cuda", CUDA, torch.float32)
