"""The dense CRF of one tile, as if the rest of the image were there.

Three things make a tile's labels those of the whole image. Points carry a *mass*, so that a thin
grid of them stands for the surroundings (`tiling`): a filter is K M instead of K, and its row sums
for the normalisation are K m. Every tile's lattices have the same *phase*: their vertices lie where
those of the whole image's lattice do. And with two passes the features are taken about the image's
mean, not the tile's.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from napari_deepcrf.crf import DenseCRF
from napari_deepcrf.crf.fused import run_mean_field
from napari_deepcrf.crf.learnable import LearnableKernel
from napari_deepcrf.crf.mean_field import MeanFieldProblem, PairwiseTerm
from napari_deepcrf.crf.options import normalizers
from napari_deepcrf.crf.prepared import GRID_RADIUS
from napari_deepcrf.inference.tiling import Labels, Surroundings, TilePoints
from napari_deepcrf.lattice.embedding import elevate, elevate_transposed, simplex
from napari_deepcrf.lattice.gaussians import Gaussian, LatticeGaussian
from napari_deepcrf.lattice.grid import GridGaussian, spatial_taps
from napari_deepcrf.lattice.lattice import Lattice, feature_scale


@dataclass(frozen=True, eq=False)
class TileCRF:
    """A CRF for tiles of one image.

    Parameters
    ----------
    crf
        Parallel updates, normalised "symmetric", "before" or "after", of quality "fast" or
        "accurate".
    shape
        (H, W) of the image.
    mean_colour
        (C,) over the image; only lattices of two passes ask for it.

    Raises
    ------
    ValueError
        For a CRF that needs the whole image at once.
    """

    crf: DenseCRF
    shape: tuple[int, int]
    mean_colour: tuple[float, ...]

    def __post_init__(self) -> None:
        options = self.crf.options
        wanted = {
            "quality": (options.quality, ("fast", "accurate")),
            "inference": (options.inference, ("parallel",)),
            "normalization": (options.normalization, ("symmetric", "before", "after")),
        }
        for name, (value, possible) in wanted.items():
            if value not in possible:
                raise ValueError(
                    f"{name}: expected {' or '.join(possible)} for an image in tiles, got {value!r}"
                )

    @property
    def surroundings(self) -> Surroundings:
        """What around a tile the kernels reach."""
        widths = [w for k in self.crf.kernels for w in k.log_theta_position.exp().tolist()]
        return Surroundings.of(widths, thin=self.crf.quality == "fast")

    @torch.inference_mode()
    def labels(self, points: TilePoints, scores: Tensor, colours: Tensor) -> Labels:
        """(H, W) most probable classes of the tile.

        Parameters
        ----------
        points
            The tile's, by ``surroundings``.
        scores
            (L, N).
        colours
            (C, N) in 0–255, on the device of the scores.
        """
        mass = torch.from_numpy(points.mass()).to(scores)
        terms, own = [], torch.zeros_like(mass)
        for kernel in self.crf.kernels:
            spatial = kernel.log_theta_colour is None
            gaussian = self._gaussian(kernel, points, colours[:0] if spatial else colours)
            row_sum = gaussian.apply(mass[:, None])[:, 0]
            pre, post = normalizers(row_sum, self.crf.options.normalization, 1)
            term = PairwiseTerm(gaussian, pre * mass, post, kernel.weight)
            if not self.crf.options.self_term:
                own += term.diagonal() / mass
            terms.append(term)
        problem = MeanFieldProblem(
            scores.T, terms, self.crf.compatibility(), None if self.crf.options.self_term else own
        )
        marginals = run_mean_field(problem, self.crf.iterations, keep_all=False)
        height, width = points.near_shape
        best = marginals[-1, : height * width].max(1).indices
        labels: Labels = points.core(best.to(torch.uint8).cpu().numpy())
        return labels

    def _gaussian(self, kernel: LearnableKernel, points: TilePoints, colours: Tensor) -> Gaussian:
        """A kernel over positions and, where there are any, colours (C, N)."""
        widths = kernel.widths(2, len(self.mean_colour))
        method = self.crf.options.method(spatial=not len(colours))
        if method.kind == "grid":
            taps = spatial_taps(widths, points.near_shape, GRID_RADIUS[widths.dtype])
            return GridGaussian(points.near_shape, taps)
        along_x, along_y = widths[:2].tolist()
        rows, columns = (
            torch.from_numpy(p).to(colours) for p in points.positions((along_y, along_x))
        )
        # One plane for each dimension, as kernels read them.
        features = torch.cat([columns[None], rows[None], colours])
        features /= widths[:, None]
        origin = [float(points.columns[0]), float(points.rows[0])] + [0.0] * len(colours)
        if method.passes == 2:
            height, width = self.shape
            centre = [(width - 1) / 2, (height - 1) / 2, *self.mean_colour[: len(colours)]]
            origin = [o - c for o, c in zip(origin, centre, strict=True)]
        shift = torch.tensor(origin, dtype=torch.float64) / widths.double().cpu()
        if method.passes == 2:
            features, shift = features.flip(0), shift.flip(0)
        features += lattice_phase(shift, passes=method.passes).to(features)[:, None]
        backend = self.crf.options.backend
        lattice = Lattice.build(features.T, ring=method.ring, passes=method.passes, backend=backend)
        return LatticeGaussian(lattice, lattice.weight)


def lattice_phase(shift: Tensor, *, passes: int) -> Tensor:
    """The smallest shift (d,) of features that differs from ``shift`` by a lattice translation.

    Moving every feature by either gives the same filter, but only the small one leaves float32
    enough digits in an image of any size. The elevation E is √(2/3)(d+1) times an isometry, so
    that Eᵀ/(2/3 (d+1)²) takes the rest beyond the nearest remainder-0 point back to features.
    """
    d, scale = len(shift), feature_scale(passes)
    elevated = elevate(shift[None].double() * scale)
    rest = elevated - simplex(elevated)[0] * (d + 1)
    return elevate_transposed(rest)[0] / (2 / 3 * (d + 1) ** 2) / scale
