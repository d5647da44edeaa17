"""Ground truth and backends for the lattice's contract."""

import os
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from napari_deepcrf.lattice import Kernels, select_kernels


@pytest.fixture(autouse=True)
def one_thread():
    """Small problems run faster on one thread, and the same on every machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = torch.device(os.environ.get("LATTICE_TESTS_DEVICE", "cpu"))
BACKENDS = ["triton"] if INTERPRETED or DEVICE.type == "cuda" else ["torch", "numba"]
"""Triton runs on a GPU, or in its interpreter; ``test_triton`` starts processes for both."""


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    """Every set of kernels that runs on the device."""
    return request.param


@pytest.fixture
def kernels(backend: str) -> Kernels:
    return select_kernels(backend)


@pytest.fixture
def random() -> Callable[..., Tensor]:
    """Normal numbers of a given shape from a fixed seed."""

    def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(*shape, generator=generator, dtype=dtype).to(DEVICE)

    return draw


@pytest.fixture
def gaussian_matrix() -> Callable[[Tensor], Tensor]:
    """The (N, N) kernel matrix of features (N, d), pair by pair."""

    def matrix(features: Tensor) -> Tensor:
        return torch.exp(-0.5 * (features[:, None] - features).square().sum(-1))

    return matrix
