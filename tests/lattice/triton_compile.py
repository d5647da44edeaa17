"""Compile every Triton kernel for Ampere and Hopper, without a GPU; run by ``test_triton.py``.

Needs a process in which TRITON_INTERPRET was never set.
"""

from __future__ import annotations

import os
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from napari_deepcrf.lattice import triton_kernels, triton_update

POINTERS = {
    "i32": "vertex point row_start piece_row piece_vertex split_vertex neighbours",
    "i64": "stride",
    "i8": "ranks",
}
DIVISIBLE = [["tt.divisibility", 16]]

TILE = {"CHANNELS": 24, "ROWS": 32, "COLUMNS": 32}
ONE_COLUMN = {"CHANNELS": 1, "ROWS": 128, "COLUMNS": 1}
CORNERS = {"CORNERS": 9}
FUSED = {
    mixing: {**CORNERS, **TILE, "COMPATIBILITY": mixing} for mixing in ("none", "diagonal", "full")
}
FUSED["plain"] = {**FUSED["none"], "self_weight": None, "grad_self": None}
FUSED["first"] = {**FUSED["none"], "CORNERS": 0, "z": None, "z_reverse": None}
FUSED["two labels"] = {**FUSED["none"], "CHANNELS": 2, "ROWS": 128, "COLUMNS": 2}

CONSTANTS: dict[str, list[dict[str, Any]]] = {
    "embed_kernel": [
        {"D": 5, "ROWS": 64, "COLUMNS": 8},
        {"D": 2, "ROWS": 64, "COLUMNS": 4, "keys": "*i32"},
    ],
    "splat_kernel": [{**TILE, "PIECE": 128}, {**ONE_COLUMN, "ROWS": 32, "PIECE": 128}],
    "combine_kernel": [TILE],
    "blur_kernel": [TILE, ONE_COLUMN],
    "slice_kernel": [{**CORNERS, **TILE}, {**CORNERS, **ONE_COLUMN}],
    "gather_dot_kernel": [{**CORNERS, **TILE}],
    "update_kernel": list(FUSED.values()),
    "backward_kernel": list(FUSED.values()),
}


def kernels() -> dict[str, Any]:
    found = vars(triton_kernels) | vars(triton_update)
    return {name: value for name, value in found.items() if name.endswith("_kernel")}


def source(kernel: Any, given: dict[str, Any]) -> ASTSource:
    """The kernel with every argument typed as its launches type it."""
    types = {name: f"*{kind}" for kind, names in POINTERS.items() for name in names.split()}
    types |= {"keys": "*i64", "tap": "fp32"}
    types |= dict.fromkeys(("num_points", "num_vertices", "point_stride", "corner_stride"), "i32")
    signature, constants, attributes = {}, {}, {}
    for index, name in enumerate(kernel.arg_names):
        kind = types.get(name, "*fp32")
        if isinstance(given.get(name), str) and given[name].startswith("*"):
            kind = given[name]
        elif name in given:
            kind = "constexpr"
            constants[index,] = given[name]
        elif name == "compatibility" and given.get("COMPATIBILITY") == "none":
            kind = "constexpr"
            constants[index,] = None
        signature[name] = kind
        if kind.startswith("*"):
            attributes[index,] = DIVISIBLE
    return ASTSource(kernel, signature, constants, attributes)


def check(name: str, kernel: Any, given: dict[str, Any], capability: int) -> None:
    options = {"num_warps": 1 if name in ("splat_kernel", "combine_kernel") else 4}
    target = GPUTarget("cuda", capability, 32)
    compiled = triton.compile(source(kernel, given), target=target, options=options)
    ptx = compiled.asm["ptx"]
    assert f".target sm_{capability}" in ptx, name
    assert len(compiled.asm["cubin"]) > 0, name
    assert not any(f"{operation}.global" in ptx for operation in ("atom", "red")), name
    # Rows of 24 labels are read 16 bytes at a time.
    if given.get("CHANNELS") == 24 and given.get("CORNERS") != 0:
        assert "ld.global.v4" in ptx, name


def main() -> None:
    assert os.environ.get("TRITON_INTERPRET") is None
    assert set(kernels()) == set(CONSTANTS)
    for name, kernel in kernels().items():
        for given in CONSTANTS[name]:
            check(name, kernel, given, 90)
        check(name, kernel, CONSTANTS[name][0], 80)


if __name__ == "__main__":
    main()
