"""The small protocol every set of lattice kernels implements, and the choice among them."""

from __future__ import annotations

import importlib
import logging
from functools import cache
from typing import TYPE_CHECKING, Protocol, cast

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from napari_deepcrf.lattice.lattice import Lattice

BACKENDS = {
    "torch": "napari_deepcrf.lattice.torch_ops",
    "numba": "napari_deepcrf.lattice.numba_cpu",
    "triton": "napari_deepcrf.lattice.triton_gpu",
}


class Kernels(Protocol):
    """What a backend module provides. These know nothing of gradients.

    A module may offer ``mean_field`` too, all updates at once, differentiable (``crf.fused``).

    N points, d feature dimensions, M lattice vertices, C channels; C may be any number from 1.
    """

    def build(self, features: Tensor, *, ring: bool, passes: int, images: int) -> Lattice:
        """Embed features (N, d), already divided by the kernel widths, into a new lattice.

        The points are those of so many images of one size; a key holds the image's number too, so
        that no vertex belongs to two of them. ``features`` may have any strides.
        """
        ...

    def splat(self, lattice: Lattice, values: Tensor) -> Tensor:
        """(N, C) -> (M, C): z_v = Σ b_ik x_i over the pairs (i, k) whose vertex is v."""
        ...

    def blur(self, lattice: Lattice, z: Tensor, *, reverse: bool) -> Tensor:
        """(M, C) -> (M, C): z + tap (left + right) along each axis 0..d.

        Each further pass runs in the order opposite to the pass before it. ``reverse`` runs the
        whole sequence backwards: the transposed operator.
        """
        ...

    def slice(self, lattice: Lattice, z: Tensor) -> Tensor:
        """(M, C) -> (N, C): y_i = Σ_k b_ik z_v(i,k), without the factor alpha."""
        ...

    def gather_dot(self, lattice: Lattice, values: Tensor, z: Tensor) -> Tensor:
        """(N, C), (M, C) -> (N, d+1): the inner products x_i · z_v(i,k)."""
        ...


def resolve_backend(backend: str, device: torch.device, dtype: torch.dtype) -> str:
    """Name the kernels that ``backend`` stands for on this device and precision.

    ``"auto"`` takes Numba for float32 on a CPU and Triton for float32 on a CUDA device where they
    work, and the plain PyTorch reference everywhere else. Triton missing on a machine with a CUDA
    device is worth a warning in the log, once, and so is a device without kernels.

    Raises
    ------
    ValueError
        For an unknown name.
    """
    import torch

    if backend != "auto":
        if backend not in BACKENDS:
            names = ", ".join(["auto", *BACKENDS])
            raise ValueError(f"backend: expected one of {names}; got {backend!r}")
        return backend
    if dtype == torch.float32:
        if device.type == "cpu" and _numba_is_ready():
            return "numba"
        if device.type == "cuda" and not triton_problem():
            return "triton"
        if device.type not in ("cpu", "cuda"):
            _tell_of_plain_operations(device.type)
    return "torch"


def select_kernels(backend: str) -> Kernels:
    """The kernels of a resolved backend name (``"torch"``, ``"numba"`` or ``"triton"``).

    Raises
    ------
    ImportError
        If what the backend needs is not installed.
    """
    if backend == "numba":
        _numba_is_ready()
    return cast("Kernels", importlib.import_module(BACKENDS[backend]))


def triton_problem() -> str:
    """Why lattices on CUDA devices run on plain PyTorch operations; empty if they do not.

    Triton also needs a C compiler and a GPU that it supports, which only a trial shows.
    """
    import torch

    try:
        return _try_triton()
    except torch.OutOfMemoryError:
        return ""  # a full GPU says nothing about Triton, and the work itself will meet it


@cache
def _try_triton() -> str:
    import torch

    try:
        importlib.import_module(BACKENDS["triton"]).try_out()
    except torch.OutOfMemoryError:
        raise
    except (ImportError, RuntimeError) as error:
        reason = str(error).strip().partition("\n")[0]
        problem = f"Triton is not used, the GPU runs plain PyTorch operations: {reason}"
        logging.getLogger(__name__).warning(problem)
        return problem
    return ""


@cache
def _tell_of_plain_operations(device: str) -> None:
    logging.getLogger(__name__).warning(
        "There are no lattice kernels for %s, it runs plain PyTorch operations", device
    )


@cache
def _numba_is_ready() -> bool:
    """Whether Numba is there; if so, it has a place for its compiled kernels."""
    try:
        importlib.import_module("napari_deepcrf.lattice.numba_cache").provide_cache()
        importlib.import_module(BACKENDS["numba"])
    except ImportError:
        return False
    return True
