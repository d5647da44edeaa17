"""The hand-over of a whole mean field to kernels that run it at once."""

from __future__ import annotations

from torch import Tensor

from napari_deepcrf.crf.mean_field import MeanFieldProblem
from napari_deepcrf.lattice.gaussians import LatticeGaussian
from napari_deepcrf.lattice.grid import GridGaussian
from napari_deepcrf.lattice.lattice import Lattice

FusedKernel = tuple[Lattice, Tensor, Tensor]
FusedGrid = tuple[GridGaussian, Tensor, Tensor]


def fused_mean_field(
    problem: MeanFieldProblem, iterations: int, *, keep_all: bool
) -> Tensor | None:
    """Marginals as ``mean_field`` returns them, or None where no kernels take this problem.

    Everything that scales a pixel before or after filtering is folded into the barycentric
    weights here, so that kernels know neither normalisation nor widths: their gradients with
    respect to the folded weights are enough, and autograd does the rest.
    """
    kernels: list[FusedKernel] = []
    grids: list[FusedGrid] = []
    for term in problem.terms:
        gaussian = term.gaussian
        if isinstance(gaussian, LatticeGaussian):
            lattice = gaussian.lattice
            splat_weight = term.pre[:, None] * gaussian.weight
            slice_weight = (lattice.alpha * term.post)[:, None] * gaussian.weight
            kernels.append((lattice, splat_weight, slice_weight))
        elif isinstance(gaussian, GridGaussian):
            grids.append((gaussian, term.pre, term.post))
        else:
            return None
    backends = {lattice.backend for lattice, _, _ in kernels}
    if len(backends) != 1:
        return None
    run = getattr(kernels[0][0].kernels, "mean_field", None)
    if run is None:
        return None
    try:
        result: Tensor = run(
            problem.scores,
            kernels,
            iterations,
            grids=grids,
            compatibility=problem.compatibility,
            self_weight=problem.self_weight,
            keep_all=keep_all,
        )
    except NotImplementedError:
        return None
    return result
