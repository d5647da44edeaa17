"""High-dimensional Gaussian filtering on the permutohedral lattice.

Where to look for

- the definition: `lattice` (the arrays), `embedding` (the simplex around a point), `keys` (numbers
  of vertices), `torch_ops` (build, splat, blur, slice in plain PyTorch);
- gradients of one filter: `filter`, for all backends; `first_order` guards backward passes;
- the operators that the CRF is made of: `gaussians` (on lattices), `grid` (exact, over positions),
  `brute_force` (exact, over anything), `scaled` (a lattice between factors);
- backends: `kernels` says what each provides, and chooses one.

The modules of the CPU, `numba_cpu` at their head:

- single filters: `numba_cpu` itself;
- building: `numba_lattice`, which calls `numba_embed` (points to keys) and `numba_build` (keys to
  vertices, rows and neighbours);
- whole mean fields: `numba_fused` (autograd), which calls `numba_mean_field` (the sequence of
  updates), which calls `numba_passes` and `numba_backward` (over pixels), `numba_rows` (over
  vertices), `numba_grid` and `numba_grid_backward` (what is outside the lattices);
- tools: `numba_simd`, `numba_exp2`, `numba_transpose` (vectors in registers), `numba_pool`
  (threads), `numba_cache` (where compiled code is kept).

Those of the GPU, `triton_gpu` at their head:

- single filters: `triton_launch`, which launches `triton_kernels`;
- building: `triton_build`, `triton_embed`;
- whole mean fields: `triton_mean_field` (autograd), which calls `triton_updates` (the sequence of
  updates, by `triton_update_kernels`) over lattices that `triton_join` makes one; `triton_graph`
  replays them from `triton_buffers`.
"""

from napari_deepcrf.lattice.filter import barycentric_weights, filter_on, permutohedral_filter
from napari_deepcrf.lattice.kernels import Kernels, select_kernels
from napari_deepcrf.lattice.lattice import Lattice

__all__ = [
    "Kernels",
    "Lattice",
    "barycentric_weights",
    "filter_on",
    "permutohedral_filter",
    "select_kernels",
]
