"""The dense CRF as a PyTorch module with learnable weights and widths."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn

from napari_deepcrf.crf.convergent import convergent_update, convexity_shift
from napari_deepcrf.crf.energy import kl_divergence
from napari_deepcrf.crf.features import grid, pixels, positions
from napari_deepcrf.crf.fused import fused_mean_field
from napari_deepcrf.crf.learnable import Compatibility, LearnableKernel
from napari_deepcrf.crf.mean_field import (
    MeanFieldProblem,
    PairwiseTerm,
    mean_field,
    parallel_update,
)
from napari_deepcrf.crf.options import (
    Inference,
    InferenceOptions,
    Normalization,
    Quality,
    normalizers,
)
from napari_deepcrf.crf.parameters import CRFParameters, KernelParameters
from napari_deepcrf.crf.prepared import PreparedImages, PreparedKernel, prepare_kernel
from napari_deepcrf.crf.reductions import mean, scaled


@dataclass(frozen=True, eq=False)
class Update:
    """The state after one mean-field update of a batch."""

    iteration: int
    """0 for the marginals of the unary scores alone."""
    marginals: Tensor
    """(B, L, *S)."""
    kl: Tensor
    """(B,) the divergence of these marginals up to log Z, nats."""
    change: float
    """Mean total variation from the update before over all pixels; infinite for the first."""


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
        p = params or CRFParameters()
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
        """Marginals (B, L, *S) after the last update; arguments as for ``trace``."""
        return self._run(scores, image, prepared, keep_all=False)[-1]

    def trace(
        self, scores: Tensor, image: Tensor, *, prepared: PreparedImages | None = None
    ) -> Tensor:
        """Marginals of every update, (T+1, B, L, *S); the first are softmax(scores).

        Differentiable in the scores and in every parameter of the module, exactly for the filter
        that runs [paper, eq. 7, 8, figure 3].

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
            For mismatched shapes, a NaN in the image, widths so small that lattice keys leave
            their range, or a ``prepared`` that was made for other widths or another size.
        """
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
        problems = self.problems(scores, image, prepared=prepared)
        shape = scores.shape[2:]
        convergent = self.options.inference == "convergent"
        shifts = [convexity_shift(p) for p in problems] if convergent else []
        states = [p.initial() for p in problems]
        change = float("inf")
        for iteration in range(self.iterations + 1):
            messages = [p.message(q) for p, q in zip(problems, states, strict=True)]
            with torch.no_grad():
                triples = zip(problems, states, messages, strict=True)
                kl = torch.stack([kl_divergence(p.scores, q, m) for p, q, m in triples])
            yield Update(iteration, torch.stack([grid(q, shape) for q in states]), kl, change)
            if iteration == self.iterations or change <= tolerance:
                return
            before = states
            if convergent:
                steps = zip(problems, states, messages, shifts, strict=True)
                states = [convergent_update(p, q, m, c) for p, q, m, c in steps]
            else:
                pairs = zip(problems, messages, strict=True)
                states = [parallel_update(p, m) for p, m in pairs]
            change = _total_variation(before, states)

    def prepare(self, image: Tensor, *, previous: PreparedImages | None = None) -> PreparedImages:
        """Build the lattices of images (B, C, *S) at the current widths.

        ``previous`` lends every kernel that would come out the same: with only one width changed
        only that kernel is built. The weights are no part of it.

        Raises
        ------
        ValueError
            As for ``trace``.
        """
        shape, channels = tuple(image.shape[2:]), image.shape[1]
        if not shape or image.numel() == 0:
            raise ValueError(f"image: expected (B, C, *S), got {tuple(image.shape)}")
        image = image.detach().to(self.spatial.log_weight)
        if not bool(torch.isfinite(image).all()):
            raise ValueError("image: expected finite numbers, got NaN or infinity")
        grid_positions = positions(shape, image)
        prepared: list[tuple[PreparedKernel, ...]] = []
        for index, one in enumerate(image):
            lent = [kernel for kernels in prepared[:1] for kernel in kernels]
            if previous is not None and index < len(previous.kernels):
                lent += previous.kernels[index]
            coloured = torch.cat([grid_positions, pixels(one)], 1)
            built = [
                self._prepare_kernel(kernel, grid_positions, coloured, shape, lent)
                for kernel in self.kernels
            ]
            prepared.append(tuple(built))
        return PreparedImages(shape, channels, tuple(prepared))

    def problems(
        self, scores: Tensor, image: Tensor, *, prepared: PreparedImages | None = None
    ) -> list[MeanFieldProblem]:
        """The CRF of every image of the batch, ready for inference; arguments as for ``trace``."""
        if scores.ndim != image.ndim or scores.shape[:1] + scores.shape[2:] != (
            image.shape[:1] + image.shape[2:]
        ):
            raise ValueError(
                "scores: expected (B, L, *S) with the image's (B, C, *S), "
                f"got {tuple(scores.shape)} and {tuple(image.shape)}"
            )
        if prepared is None:
            prepared = self.prepare(image)
        elif prepared.shape != tuple(image.shape[2:]) or len(prepared.kernels) != len(image):
            raise ValueError("prepared: made for images of another size or number")
        scores = scores.to(self.spatial.log_weight)
        compatibility = self.compatibility()
        terms: dict[PreparedKernel, PairwiseTerm] = {}
        problems = []
        for one, kernels in zip(scores, prepared.kernels, strict=True):
            for learnable, kernel in zip(self.kernels, kernels, strict=True):
                if kernel not in terms:
                    widths = learnable.widths(len(prepared.shape), prepared.channels)
                    terms[kernel] = self._term(kernel, widths, learnable.weight)
            own = [terms[kernel] for kernel in kernels]
            excluded = None if self.options.self_term else sum(t.diagonal() for t in own)
            problems.append(
                MeanFieldProblem(pixels(one), own, compatibility, cast("Tensor | None", excluded))
            )
        return problems

    def _run(
        self, scores: Tensor, image: Tensor, prepared: PreparedImages | None, *, keep_all: bool
    ) -> Tensor:
        if self.options.inference == "convergent":
            states = [u.marginals for u in self.updates(scores, image, prepared=prepared)]
            return torch.stack(states)
        traces = []
        for problem in self.problems(scores, image, prepared=prepared):
            trace = fused_mean_field(problem, self.iterations, keep_all=keep_all)
            if trace is None:
                trace = mean_field(problem, self.iterations, keep_all=keep_all)
            marginals = grid(trace, scores.shape[2:])
            # Some of PyTorch's losses refuse strided marginals; inference saves the copy.
            traces.append(marginals.contiguous() if marginals.requires_grad else marginals)
        return traces[0][:, None] if len(traces) == 1 else torch.stack(traces, 1)

    def _prepare_kernel(
        self,
        kernel: LearnableKernel,
        grid_positions: Tensor,
        coloured: Tensor,
        shape: tuple[int, ...],
        lent: Sequence[PreparedKernel],
    ) -> PreparedKernel:
        spatial = kernel.log_theta_colour is None
        coordinates = grid_positions if spatial else coloured
        channels = coloured.shape[1] - grid_positions.shape[1]
        widths = kernel.widths(len(shape), channels).detach()
        method = self.options.method(spatial=spatial)
        for candidate in lent:
            if candidate.serves(coordinates, widths, method):
                return candidate
        backend = self.options.backend
        try:
            return prepare_kernel(coordinates, widths, method, shape=shape, backend=backend)
        except ValueError as error:
            raise ValueError(f"{kernel.describe()}: {error}") from error

    def _term(self, kernel: PreparedKernel, widths: Tensor, weight: Tensor) -> PairwiseTerm:
        if tuple(widths.tolist()) != kernel.widths:
            raise ValueError("prepared: made for other kernel widths, call prepare again")
        learning = torch.is_grad_enabled() and widths.requires_grad
        gaussian = kernel.bind(widths if learning else None)
        row_sum = kernel.row_sum
        if learning:
            row_sum = gaussian.apply(torch.ones_like(row_sum)[:, None])[:, 0]
        pre, post = normalizers(row_sum, self.options.normalization)
        return PairwiseTerm(gaussian, pre, scaled(post, weight))


def _total_variation(before: Sequence[Tensor], after: Sequence[Tensor]) -> float:
    with torch.no_grad():
        moved = [mean(0.5 * (a - b).abs().sum(1)) for a, b in zip(after, before, strict=True)]
    return float(torch.stack(moved).mean())
