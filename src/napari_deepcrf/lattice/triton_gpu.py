"""The lattice on CUDA GPUs, in Triton: float32, deterministic.

Where the environment variable TRITON_INTERPRET=1 was set before Triton was first imported, the
same kernels run on the CPU, slowly: that is how they are tested without a GPU.
"""

from __future__ import annotations

import subprocess

import torch
import triton
from torch import Tensor
from triton.errors import TritonError

from napari_deepcrf.lattice import triton_build, triton_launch
from napari_deepcrf.lattice.lattice import Lattice
from napari_deepcrf.lattice.triton_build import owned
from napari_deepcrf.lattice.triton_kernels import gather_dot_kernel
from napari_deepcrf.lattice.triton_launch import on_device_of
from napari_deepcrf.lattice.triton_mean_field import mean_field

__all__ = ["blur", "build", "gather_dot", "mean_field", "slice", "splat", "try_out"]


def build(features: Tensor, *, ring: bool, passes: int, images: int) -> Lattice:
    """Embed features (N, d) float32 and connect the occupied vertices; see ``Lattice.build``."""
    features = checked(features, "features")
    with on_device_of(features):
        return triton_build.build(features, ring=ring, passes=passes, images=images)


def splat(lattice: Lattice, values: Tensor) -> Tensor:
    """(N, C) -> (M, C), a segmented sum in a fixed order."""
    own = owned(lattice)
    values = rows(values, "values")
    z = values.new_empty(own.num_vertices, values.shape[1])
    partial = values.new_empty(own.piece_vertex.shape[0], values.shape[1])
    with on_device_of(values):
        triton_launch.splat(own, own.splat_weight, values, z, partial)
    return z


def blur(lattice: Lattice, z: Tensor, *, reverse: bool) -> Tensor:
    """(M, C) -> (M, C), along axes 0..d; each further pass the other way round."""
    z = rows(z, "z")
    order = owned(lattice).blur_order(reverse=reverse)
    buffers = torch.empty_like(z), torch.empty_like(z)
    with on_device_of(z):
        for turn, axis in enumerate(order):
            target = buffers[turn % 2]
            triton_launch.blur_axis(z, lattice.neighbours[axis], lattice.tap, target)
            z = target
    return z


def slice(lattice: Lattice, z: Tensor) -> Tensor:  # noqa: A001 - the field's name
    """(M, C) -> (N, C), barycentric interpolation of the vertices' values."""
    z = rows(z, "z")
    out = z.new_empty(lattice.num_points, z.shape[1])
    strides = (lattice.dim + 1, 1)
    with on_device_of(z):
        triton_launch.slice_points(z, lattice.vertex, lattice.weight, strides, out)
    return out


def gather_dot(lattice: Lattice, values: Tensor, z: Tensor) -> Tensor:
    """(N, C), (M, C) -> (N, d+1): the inner products x_i · z_v(i,k)."""
    values, z = rows(values, "values"), rows(z, "z")
    out = torch.empty_like(lattice.weight)
    height, width = triton_launch.tile(values.shape[1])
    with on_device_of(values):
        gather_dot_kernel[(triton.cdiv(out.shape[0], height),)](
            values, z, lattice.vertex, out, out.shape[0], z.shape[0],
            CORNERS=out.shape[1], CHANNELS=values.shape[1], ROWS=height, COLUMNS=width,
        )  # fmt: skip
    return out


def try_out() -> None:
    """Build a lattice of one point, which raises RuntimeError where Triton cannot compile."""
    try:
        build(torch.zeros(1, 1, device=_device()), ring=False, passes=1, images=1)
    # No CUDA driver to link to, no Python headers, an assembler that does not know the GPU.
    except (AssertionError, OSError, subprocess.SubprocessError, TritonError) as error:
        raise RuntimeError(f"{type(error).__name__}: {error}") from error


def rows(tensor: Tensor, name: str) -> Tensor:
    """A ``checked`` tensor whose rows are contiguous."""
    return checked(tensor, name).contiguous()


def checked(tensor: Tensor, name: str) -> Tensor:
    """The tensor without gradients, if the kernels can read it."""
    if tensor.dtype != torch.float32 or tensor.device.type != _device():
        raise TypeError(
            f"{name}: the Triton kernels expect float32 on {_device()}, "
            f"got {tensor.dtype} on {tensor.device}"
        )
    return tensor.detach()


def _device() -> str:
    compiled = isinstance(gather_dot_kernel, triton.JITFunction)
    return "cuda" if compiled else "cpu"
