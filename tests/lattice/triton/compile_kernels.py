"""Compile every variant of every kernel that launches ask for, without a GPU; see `test_triton`.

    python compile_kernels.py 80        Ampere; 90 for Hopper

Launches go through Triton's own path, which types and specialises their arguments, to a driver
that compiles and then does nothing. Needs a process in which TRITON_INTERPRET was never set.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

from napari_deepcrf.lattice import torch_ops, triton_gpu, triton_kernels, triton_update_kernels
from napari_deepcrf.lattice.keys import numbering
from napari_deepcrf.lattice.scaled import ScaledLattice
from napari_deepcrf.lattice.triton_build import TritonLattice, _pieces
from napari_deepcrf.lattice.triton_embed import embed
from napari_deepcrf.lattice.triton_mean_field import mean_field

SHARED_MEMORY = {80: 163 * 1024, 90: 227 * 1024}
"""Bytes that one program may have."""
POINTS = 40


class CompilingDriver:
    """A CUDA driver without a GPU: takes compiled kernels and launches nothing."""

    def __init__(self, capability: int) -> None:
        self.capability = capability
        self.utils = self

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self.capability, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_device_properties(self, device: int) -> dict[str, int]:
        return {"max_shared_mem": SHARED_MEMORY[self.capability]}

    def load_binary(self, name: str, code: bytes, shared: int, device: int) -> tuple[Any, ...]:
        assert len(code) > 0, name
        return object(), object(), 0, 0, 1024

    def launcher_cls(self, source: Any, metadata: Any) -> Callable[..., None]:
        def launch(x: int, y: int, z: int, *_: object) -> None:
            assert 0 < x < 2**31, metadata.name
            assert 0 < y < 2**16, metadata.name
            assert z == 1, metadata.name

        return launch


def lattice_of(dim: int) -> TritonLattice:
    """A lattice whose embedding ran in PyTorch, with a run long enough to be split."""
    generator = torch.Generator().manual_seed(0)
    features = 0.1 * torch.randn(POINTS, dim, generator=generator)
    features = torch.cat([features, features.new_zeros(200, dim)])
    plain = torch_ops.build(features, ring=False, passes=1, images=1)
    piece_row, piece_vertex, split_vertex = _pieces(plain.row_start)
    assert split_vertex.numel() > 0
    return TritonLattice(
        **{name: getattr(plain, name) for name in ("vertex", "weight", "rank", "neighbours")},
        passes=1,
        backend="triton",
        row_start=plain.row_start,
        entry=plain.entry,
        splat_point=(plain.entry // (dim + 1)).int(),
        splat_weight=plain.weight.flatten()[plain.entry.long()],
        piece_row=piece_row.int(),
        piece_vertex=piece_vertex.int(),
        split_vertex=split_vertex.int(),
    )


def embed_all() -> None:
    """Rows and planes of features, keys of 32 and of 64 bits."""
    for dim, reach in ((1, 1.0), (2, 1.0), (5, 1.0), (5, 500.0)):
        cells = numbering([0.0] * dim, [reach] * dim, 1, images=1)
        for features in (torch.zeros(POINTS, dim), torch.zeros(dim, POINTS).T):
            embed(features, cells, 1)


def filter_all() -> None:
    lattice = lattice_of(5)
    for channels in (1, 3, 70):
        values = torch.zeros(lattice.num_points, channels)
        z = triton_gpu.blur(lattice, triton_gpu.splat(lattice, values), reverse=False)
        triton_gpu.slice(lattice, z)
        triton_gpu.gather_dot(lattice, values, z)


def mean_field_all() -> None:
    """Forward and backward, kinds of µ and of self terms, few labels and many."""
    photo = [lattice_of(2), lattice_of(5)]
    small = [lattice_of(1)]  # fewer corners, less to compile
    own = torch.ones(photo[0].num_points)
    for lattices, labels, mixing, self_weight in (
        (photo, 21, None, None),
        (small, 21, torch.ones(21), own),
        (small, 21, torch.eye(21), None),
        (small, 2, None, None),
        (small, 2, torch.eye(2), own),
        (small, 64, torch.eye(64), None),
        (small, 100, None, None),
    ):
        scores = torch.zeros(own.shape[0], labels, requires_grad=True)
        kernels = [ScaledLattice(lattice, lattice.weight, own, own) for lattice in lattices]
        trace: Tensor = mean_field(
            scores, kernels, 2, compatibility=mixing, self_weight=self_weight
        )
        trace.sum().backward()


def check(kernel: Any, variant: Any, capability: int) -> None:
    name, code = variant.name, variant.asm["ptx"]
    assert f".target sm_{capability}" in code, name
    assert not any(f"{operation}.global" in code for operation in ("atom", "red")), name
    assert ".local" not in code, f"{name} keeps arrays outside of the registers"
    constants = {kernel.arg_names[path[0]]: value for path, value in variant.src.constants.items()}
    if constants.get("CHANNELS") == 24:  # 21 labels, padded so that rows are read 16 bytes a time
        assert "ld.global.v4" in code, name


def main(capability: int) -> None:
    assert os.environ.get("TRITON_INTERPRET") is None
    driver.set_active(CompilingDriver(capability))
    triton_gpu._device = lambda: "cpu"
    embed_all()
    filter_all()
    mean_field_all()
    found = vars(triton_kernels) | vars(triton_update_kernels)
    kernels = {name: value for name, value in found.items() if name.endswith("_kernel")}
    for name, kernel in kernels.items():
        variants = list(kernel.device_caches[0][0].values())
        assert variants, f"{name} was never launched"
        for variant in variants:
            check(kernel, variant, capability)
        print(f"{name}: {len(variants)} variants")


if __name__ == "__main__":
    main(int(sys.argv[1]))
