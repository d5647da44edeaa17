"""The hand-over of a whole mean field to kernels that run it at once."""

from __future__ import annotations

from torch import Tensor

from napari_deepcrf.crf.mean_field import MeanFieldProblem, mean_field
from napari_deepcrf.crf.reductions import scaled
from napari_deepcrf.lattice.gaussians import LatticeGaussian
from napari_deepcrf.lattice.grid import GridGaussian
from napari_deepcrf.lattice.scaled import ScaledLattice

FusedGrid = tuple[GridGaussian, Tensor, Tensor]


def run_mean_field(problem: MeanFieldProblem, iterations: int, *, keep_all: bool) -> Tensor:
    """Marginals as ``mean_field`` returns them, by fused kernels where some take this problem."""
    fused = fused_mean_field(problem, iterations, keep_all=keep_all)
    return mean_field(problem, iterations, keep_all=keep_all) if fused is None else fused


def fused_mean_field(
    problem: MeanFieldProblem, iterations: int, *, keep_all: bool
) -> Tensor | None:
    """Marginals as ``mean_field`` returns them, or None where no kernels take this problem.

    Kernels know neither normalisation nor widths, only barycentric weights and factors before and
    after a filter. Their gradients with respect to these are enough, and autograd does the rest.
    """
    kernels: list[ScaledLattice] = []
    grids: list[FusedGrid] = []
    for term in problem.terms:
        gaussian = term.gaussian
        if isinstance(gaussian, LatticeGaussian):
            lattice = gaussian.lattice
            after = scaled(term.post, lattice.alpha * term.weight)
            kernels.append(ScaledLattice(lattice, gaussian.weight, term.pre, after))
        elif isinstance(gaussian, GridGaussian):
            grids.append((gaussian, term.pre, scaled(term.post, term.weight)))
        else:
            return None
    backends = {kernel.lattice.backend for kernel in kernels}
    if len(backends) != 1:
        return None
    run = getattr(kernels[0].lattice.kernels, "mean_field", None)
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
