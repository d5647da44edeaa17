"""High-dimensional Gaussian filtering on the permutohedral lattice."""

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
