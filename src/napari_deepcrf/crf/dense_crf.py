"""The dense CRF as a PyTorch module with learnable weights and widths."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from napari_deepcrf.crf.features import grid, pixels, positions
from napari_deepcrf.crf.mean_field import MeanFieldProblem, PairwiseTerm, mean_field
from napari_deepcrf.crf.normalization import check_normalization, factors
from napari_deepcrf.crf.parameters import CRFParameters, Width
from napari_deepcrf.crf.prepared import PreparedImages, PreparedKernel, check_quality


class DenseCRF(nn.Module):
    """Mean-field inference in a fully connected CRF with Gaussian kernels.

    Parameters
    ----------
    params
        Initial weights and widths; all are learnt as logarithms.
    iterations
        Parallel updates T, at least 0.
    normalization
        ``"symmetric"``, ``"before"``, ``"after"`` or ``"none"``.
    quality
        ``"fast"`` or ``"accurate"``.
    backend
        ``"auto"``, ``"torch"``, ``"numba"`` or ``"triton"``.
    compatibility
        ``"potts"``: a pair scores where its labels agree.
    channels
        Image channels whose widths are learnt apart.
    image_dims
        2 for images, 3 for volumes.
    """

    def __init__(
        self,
        params: CRFParameters | None = None,
        *,
        iterations: int = 5,
        normalization: str = "symmetric",
        quality: str = "fast",
        backend: str = "auto",
        channels: int = 3,
        image_dims: int = 2,
    ) -> None:
        super().__init__()
        if iterations < 0:
            raise ValueError(f"iterations: expected at least 0, got {iterations}")
        params = params or CRFParameters()
        self.iterations = iterations
        self.normalization = check_normalization(normalization)
        self.quality = check_quality(quality)
        self.backend = backend
        self.log_w_spatial = nn.Parameter(torch.tensor(math.log(params.w_spatial)))
        self.log_theta_gamma = _log_widths(params.theta_gamma, image_dims)
        self.log_w_bilateral = nn.Parameter(torch.tensor(math.log(params.w_bilateral)))
        self.log_theta_alpha = _log_widths(params.theta_alpha, image_dims)
        self.log_theta_beta = _log_widths(params.theta_beta, channels)

    def crf_parameters(self) -> CRFParameters:
        """A plain snapshot of the current weights and widths."""
        return CRFParameters(
            w_spatial=math.exp(float(self.log_w_spatial.detach())),
            theta_gamma=_snapshot(self.log_theta_gamma),
            w_bilateral=math.exp(float(self.log_w_bilateral.detach())),
            theta_alpha=_snapshot(self.log_theta_alpha),
            theta_beta=_snapshot(self.log_theta_beta),
        )

    def forward(
        self, scores: Tensor, image: Tensor, *, prepared: PreparedImages | None = None
    ) -> Tensor:
        """Marginals (B, L, *S) after the last update; see ``trace``."""
        return self.trace(scores, image, prepared=prepared)[-1]

    def trace(
        self, scores: Tensor, image: Tensor, *, prepared: PreparedImages | None = None
    ) -> Tensor:
        """Marginals of every update, (T+1, B, L, *S); the first are softmax(scores).

        Parameters
        ----------
        scores
            (B, L, *S) unary scores: log-probabilities up to a constant per pixel.
        image
            (B, C, *S) in 0-255, S = (H, W) or (D, H, W).
        prepared
            ``prepare(image)``, to reuse the lattices.
        """
        prepared = prepared or self.prepare(image)
        traces = [
            mean_field(self._problem(pixels(s), kernels), self.iterations)
            for s, kernels in zip(scores, prepared.kernels, strict=True)
        ]
        return torch.stack([grid(t, scores.shape[2:]) for t in traces], 1)

    def prepare(self, image: Tensor, *, previous: PreparedImages | None = None) -> PreparedImages:
        """Build the lattices of images (B, C, *S) at the current widths.

        ``previous`` lends every kernel whose coordinates and widths have not changed.
        """
        shape = tuple(image.shape[2:])
        image = image.to(self.log_theta_gamma)
        grid_positions = positions(shape, image)
        gamma, bilateral = self._widths(len(shape), image.shape[1])
        kernels: list[tuple[PreparedKernel, ...]] = []
        for index, one in enumerate(image):
            old = previous.kernels[index] if previous and index < len(previous.kernels) else ()
            lent = [*(kernels[0][:1] if kernels else ()), *old]
            colour = torch.cat([grid_positions, pixels(one)], 1)
            kernels.append(
                (
                    self._kernel(grid_positions, gamma, lent),
                    self._kernel(colour, bilateral, lent),
                )
            )
        return PreparedImages(shape, tuple(kernels))

    def _kernel(
        self, coordinates: Tensor, widths: Tensor, lent: Sequence[PreparedKernel]
    ) -> PreparedKernel:
        widths = widths.detach()
        for kernel in lent:
            same = kernel.widths == tuple(widths.tolist())
            if same and torch.equal(kernel.coordinates, coordinates):
                return kernel
        return PreparedKernel.build(coordinates, widths, self.quality, self.backend)

    def _widths(self, image_dims: int, channels: int) -> tuple[Tensor, Tensor]:
        """Widths of both kernels in the order of their coordinates: x, y, (z,) channels."""
        gamma = _fit(self.log_theta_gamma, image_dims, "theta_gamma").exp().flip(0)
        alpha = _fit(self.log_theta_alpha, image_dims, "theta_alpha").exp().flip(0)
        beta = _fit(self.log_theta_beta, channels, "theta_beta").exp()
        return gamma, torch.cat([alpha, beta])

    def _problem(self, scores: Tensor, kernels: Sequence[PreparedKernel]) -> MeanFieldProblem:
        image_dims = len(kernels[0].widths)
        widths = self._widths(image_dims, len(kernels[1].widths) - image_dims)
        weights = self.log_w_spatial.exp(), self.log_w_bilateral.exp()
        terms = [self._term(k, t, w) for k, t, w in zip(kernels, widths, weights, strict=True)]
        return MeanFieldProblem(scores, terms)

    def _term(self, kernel: PreparedKernel, widths: Tensor, weight: Tensor) -> PairwiseTerm:
        if tuple(widths.tolist()) != kernel.widths:
            raise ValueError("prepared: made with other widths; call prepare again")
        learning = torch.is_grad_enabled() and widths.requires_grad
        gaussian = kernel.bind(widths if learning else None)
        row_sum = kernel.row_sum
        if learning:
            row_sum = gaussian.apply(torch.ones_like(row_sum)[:, None])[:, 0]
        pre, post = factors(row_sum, self.normalization)
        return PairwiseTerm(gaussian, pre, weight * post)


def _log_widths(width: Width, count: int) -> nn.Parameter:
    values = width if isinstance(width, tuple) else (width,) * count
    return nn.Parameter(torch.tensor(values).log())


def _snapshot(log_width: Tensor) -> Width:
    values = tuple(math.exp(v) for v in log_width.detach().tolist())
    return values[0] if len(set(values)) == 1 else values


def _fit(log_width: Tensor, count: int, name: str) -> Tensor:
    """Widths for ``count`` axes; an isotropic width serves any number of them."""
    if log_width.shape[0] == count:
        return log_width
    if bool((log_width == log_width[0]).all()):
        return log_width.mean().expand(count)
    raise ValueError(f"{name}: {log_width.shape[0]} different widths for an image with {count}")
