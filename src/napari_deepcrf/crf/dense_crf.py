"""The dense CRF as a PyTorch module with learnable weights and widths."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn

from napari_deepcrf.crf.checks import (
    SPATIAL_AXES,
    check_finite_scores,
    check_image,
    check_scores,
    check_type,
    check_whole,
)
from napari_deepcrf.crf.features import PixelGrid, grid, pixels
from napari_deepcrf.crf.fused import run_mean_field
from napari_deepcrf.crf.learnable import Compatibility, LearnableKernel
from napari_deepcrf.crf.mean_field import MeanFieldProblem, PairwiseTerm
from napari_deepcrf.crf.options import (
    Inference,
    InferenceOptions,
    Normalization,
    Quality,
    normalizers,
)
from napari_deepcrf.crf.parameters import CRFParameters, KernelParameters
from napari_deepcrf.crf.prepared import PreparedImages, PreparedKernel, prepare_kernel
from napari_deepcrf.crf.updates import Update, run_updates


class DenseCRF(nn.Module):
    """Mean-field inference in a fully connected CRF with Gaussian kernels [paper, sections 3, 4].

    Parameters
    ----------
    params
        Initial weights and widths; all are learnt, as logarithms.
    iterations
        Updates T, at least 0.
    normalization
        ``"symmetric"``, ``"before"``, ``"after"`` or ``"none"``; see ``options.normalizers``.
    quality
        ``"fast"``: plain lattices. ``"accurate"``: a finer one with a ring of neighbours for the
        bilateral kernel, the spatial kernel exact. ``"exact"``: every pair of pixels, for small
        images.
    backend
        ``"auto"``, ``"torch"``, ``"numba"`` or ``"triton"``.
    compatibility
        ``"potts"``, or a learnable ``"diagonal"`` or ``"full"`` symmetric matrix of
        ``num_classes`` labels that starts as Potts.
    inference
        ``"parallel"`` updates, or ``"convergent"`` ones that never raise the divergence.
    self_term
        Whether a pixel also sends a message to itself, as the common implementations do.
    extra_kernels
        Further Gaussian kernels beside the spatial and the bilateral one.
    channels, image_dims
        How many widths are learnt apart where ``params`` gives a single number: image channels,
        and 2 for images or 3 for volumes. Equal widths serve images with any number of them.

    Raises
    ------
    ValueError
        For an unknown choice, or a missing ``num_classes``.
    TypeError
        For parameters of another type, or ``iterations`` that are no whole number.
    """

    def __init__(
        self,
        params: CRFParameters | None = None,
        *,
        iterations: int = 5,
        normalization: str = "symmetric",
        quality: str = "fast",
        backend: str = "auto",
        compatibility: str = "potts",
        num_classes: int | None = None,
        inference: str = "parallel",
        self_term: bool = True,
        extra_kernels: Sequence[KernelParameters] = (),
        channels: int = 3,
        image_dims: int = 2,
    ) -> None:
        super().__init__()
        self.options = InferenceOptions(
            iterations=iterations,
            normalization=cast("Normalization", normalization),
            quality=cast("Quality", quality),
            inference=cast("Inference", inference),
            self_term=self_term,
            backend=backend,
        )
        p = CRFParameters() if params is None else params
        check_type("params", p, CRFParameters)
        for kernel in extra_kernels:
            check_type("extra_kernels", kernel, KernelParameters)
        check_whole("channels", channels, least=1)
        check_whole("image_dims", image_dims, least=2)
        if image_dims not in SPATIAL_AXES:
            raise ValueError(f"image_dims: expected 2 or 3, got {image_dims}")
        learnable = partial(LearnableKernel, image_dims=image_dims, channels=channels)
        spatial = KernelParameters(weight=p.w_spatial, theta_position=p.theta_gamma)
        bilateral = KernelParameters(
            weight=p.w_bilateral, theta_position=p.theta_alpha, theta_colour=p.theta_beta
        )
        self.spatial = learnable(spatial, names=("theta_gamma", ""))
        self.bilateral = learnable(bilateral, names=("theta_alpha", "theta_beta"))
        self.extra = nn.ModuleList(learnable(k) for k in extra_kernels)
        self.compatibility = Compatibility(compatibility, num_classes)

    @property
    def iterations(self) -> int:
        return self.options.iterations

    @property
    def normalization(self) -> str:
        return self.options.normalization

    @property
    def quality(self) -> str:
        return self.options.quality

    @property
    def kernels(self) -> tuple[LearnableKernel, ...]:
        """The spatial, the bilateral, then the extra kernels."""
        return (self.spatial, self.bilateral, *cast("list[LearnableKernel]", list(self.extra)))

    def crf_parameters(self) -> CRFParameters:
        """A plain snapshot of the current weights and widths."""
        spatial, bilateral = self.spatial.snapshot(), self.bilateral.snapshot()
        assert bilateral.theta_colour is not None
        return CRFParameters(
            w_spatial=spatial.weight,
            theta_gamma=spatial.theta_position,
            w_bilateral=bilateral.weight,
            theta_alpha=bilateral.theta_position,
            theta_beta=bilateral.theta_colour,
        )

    def forward(
        self, scores: Tensor, image: Tensor, *, prepared: PreparedImages | None = None
    ) -> Tensor:
        """Marginals (B, L, *S) after the last update; arguments and errors as for ``trace``.

        Scores with NaN or infinity are not looked for: they show in the marginals, and in a loss.
        """
        return self._run(scores, image, prepared, keep_all=False)[-1]

    def trace(
        self, scores: Tensor, image: Tensor, *, prepared: PreparedImages | None = None
    ) -> Tensor:
        """Marginals of every update, (T+1, B, L, *S); the first are softmax(scores).

        Differentiable once in the scores and in every parameter of the module, exactly for the
        filter that runs [paper, eq. 7, 8, figure 3].

        Parameters
        ----------
        scores
            (B, L, *S) unary scores: log-probabilities up to a constant per pixel.
        image
            (B, C, *S) in 0-255, S = (H, W) or (D, H, W); gradients are not followed.
        prepared
            ``prepare(image)``, to reuse the lattices.

        Raises
        ------
        ValueError
            For mismatched or empty shapes, another number of labels than the compatibility has, an
            image with NaN or infinity, widths that are NaN or so small that lattice keys leave
            their range, a ``prepared`` that was made for other widths or another size; and for
            scores with NaN or infinity while gradients are off (with gradients on they show in the
            loss).
        TypeError
            For anything but tensors of real numbers.
        """
        if not torch.is_grad_enabled():
            check_finite_scores(scores)
        return self._run(scores, image, prepared, keep_all=True)

    def updates(
        self,
        scores: Tensor,
        image: Tensor,
        *,
        prepared: PreparedImages | None = None,
        tolerance: float = 0.0,
    ) -> Iterator[Update]:
        """Run the updates one by one, with the value of the divergence at each.

        Ends after ``iterations`` updates, or once the mean total variation between two updates is
        at most ``tolerance``. Arguments and errors else as for ``trace``.
        """
        check_finite_scores(scores)
        yield from run_updates(
            self.problem(scores, image, prepared=prepared),
            tuple(scores.shape[2:]),
            self.iterations,
            convergent=self.options.inference == "convergent",
            tolerance=tolerance,
        )

    def prepare(self, image: Tensor, *, previous: PreparedImages | None = None) -> PreparedImages:
        """Build the lattices of images (B, C, *S) at the current widths, one for the whole batch.

        ``previous`` lends every kernel that would come out the same: with only one width changed
        only that kernel is built. The weights are no part of it. The image is copied.

        Raises
        ------
        TypeError, ValueError
            As for ``trace``.
        """
        check_image(image)
        # Tensors made in inference mode could not serve in training later on.
        with torch.inference_mode(False), torch.no_grad():
            return self._prepare(image.detach().clone(), previous)

    def problem(
        self, scores: Tensor, image: Tensor, *, prepared: PreparedImages | None = None
    ) -> MeanFieldProblem:
        """The CRFs of a batch, ready for inference [paper, eq. 3, 9]; arguments as for ``trace``.

        Raises
        ------
        ValueError, TypeError
            As ``trace``, but for scores that are not finite, which nothing here looks for.
        """
        if prepared is None:
            check_image(image)
        check_scores(scores, image)
        if prepared is None:
            prepared = self._prepare(image.detach(), None)
        elif prepared.pixels.images.shape != image.shape:
            raise ValueError(
                f"prepared: expected images of shape {tuple(image.shape)}, "
                f"got {tuple(prepared.pixels.images.shape)}"
            )
        terms = [
            self._term(kernel, learnable)
            for learnable, kernel in zip(self.kernels, prepared.kernels, strict=True)
        ]
        excluded = None
        if not self.options.self_term:
            excluded = torch.stack([term.diagonal() for term in terms]).sum(0)
        mu = self.compatibility()
        if mu is not None and len(mu) != scores.shape[1]:
            raise ValueError(
                f"scores: expected {len(mu)} labels, as the compatibility has, "
                f"got {scores.shape[1]}"
            )
        scores = pixels(scores.to(self.spatial.log_weight))
        return MeanFieldProblem(scores, terms, mu, excluded, len(image))

    def _run(
        self, scores: Tensor, image: Tensor, prepared: PreparedImages | None, *, keep_all: bool
    ) -> Tensor:
        problem = self.problem(scores, image, prepared=prepared)
        shape = tuple(scores.shape[2:])
        if self.options.inference == "convergent":
            updates = run_updates(problem, shape, self.iterations, convergent=True, tolerance=-1.0)
            kept = deque(updates, maxlen=None if keep_all else 1)
            return torch.stack([update.marginals for update in kept])
        trace = run_mean_field(problem, self.iterations, keep_all=keep_all)
        marginals = grid(trace, problem.images, shape)
        # Some of PyTorch's losses refuse strided marginals; inference saves the copy.
        return marginals.contiguous() if marginals.requires_grad else marginals

    def _prepare(self, image: Tensor, previous: PreparedImages | None) -> PreparedImages:
        grid_of_pixels = PixelGrid(image.to(self.spatial.log_weight))
        lent = [] if previous is None else list(previous.kernels)
        kernels: list[PreparedKernel] = []
        for kernel in self.kernels:
            kernels.append(self._prepare_kernel(kernel, grid_of_pixels, [*lent, *kernels]))
        return PreparedImages(grid_of_pixels, tuple(kernels))

    def _prepare_kernel(
        self, kernel: LearnableKernel, points: PixelGrid, lent: Sequence[PreparedKernel]
    ) -> PreparedKernel:
        coloured = kernel.log_theta_colour is not None
        widths = kernel.widths(len(points.shape), points.channels).detach()
        if bool(widths.isnan().any()):
            raise ValueError(f"{kernel.describe()}: expected kernel widths, got NaN")
        method = self.options.method(spatial=not coloured)
        for candidate in lent:
            if candidate.serves(points, coloured=coloured, widths=widths, method=method):
                return candidate
        backend = self.options.backend
        try:
            return prepare_kernel(points, widths, method, coloured=coloured, backend=backend)
        except ValueError as error:
            raise ValueError(f"{kernel.describe()}: {error}") from error

    def _term(self, kernel: PreparedKernel, learnable: LearnableKernel) -> PairwiseTerm:
        points = kernel.pixels
        widths = learnable.widths(len(points.shape), points.channels)
        if tuple(widths.tolist()) != kernel.widths:
            now, then = (", ".join(f"{w:g}" for w in each) for each in (widths, kernel.widths))
            raise ValueError(
                "prepared: made for other kernel widths, call prepare again: "
                f"expected {now}, got {then}"
            )
        learning = torch.is_grad_enabled() and widths.requires_grad
        gaussian = kernel.bind(widths if learning else None)
        row_sum = gaussian.row_sum() if learning else kernel.row_sum
        factors = normalizers(row_sum, self.options.normalization, points.count)
        return PairwiseTerm(gaussian, *factors, learnable.weight)
