"""High-dimensional Gaussian filtering on the permutohedral lattice.

`lattice.Lattice` holds the arrays, `keys` numbers the vertices, `embedding` finds the simplex
around a point, `filter` follows the gradients. `kernels` says what every backend provides and
chooses one: `torch_ops` is the readable definition, `numba_cpu` and `triton_gpu` are the doors to
the modules of their prefix. `gaussians`, `grid` and `brute_force` are the operators that the CRF is
made of.
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
