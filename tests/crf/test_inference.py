"""What mean field minimises, and inference that always converges."""

import itertools

import numpy as np
import pytest
import torch

from napari_deepcrf.crf import CRFParameters, DenseCRF, KernelParameters, convergent
from napari_deepcrf.crf.convergent import convergent_update, convexity_shift, solve_pixels
from napari_deepcrf.crf.divergence import kl_divergence
from napari_deepcrf.crf.mean_field import MeanFieldProblem, PairwiseTerm, parallel_update
from napari_deepcrf.crf.sequential import sequential_mean_field

STRONG = CRFParameters(w_spatial=25, theta_gamma=0.7, w_bilateral=40, theta_alpha=1, theta_beta=20)


class Matrix:
    """A dense kernel as an operator."""

    def __init__(self, matrix):
        self.matrix = matrix

    def apply(self, values):
        return self.matrix @ values

    def diagonal(self):
        return self.matrix.diagonal()


def tensors(photo, smooth_scores, labels=3, height=9, width=11):
    image = torch.tensor(photo(height=height, width=width)).double()[None]
    scores = torch.tensor(smooth_scores(labels, height, width)).double()[None]
    return scores, image


def problem_of(matrix, scores, mu=None, self_term=False):
    ones = torch.ones(len(matrix), dtype=torch.float64)
    term = PairwiseTerm(Matrix(matrix), ones, ones, ones[0])
    return MeanFieldProblem(scores, [term], mu, None if self_term else term.diagonal())


def test_divergence_is_that_of_the_enumerated_distribution(random):
    """On three pixels with two labels log Z is the sum over all eight labellings."""
    scores = random(3, 2)
    kernel = random(3, 3, seed=1).exp()
    kernel = kernel + kernel.T
    mu = torch.tensor([[1.0, -0.3], [-0.3, 0.5]], dtype=torch.float64)
    problem = problem_of(kernel, scores, mu)
    q = torch.softmax(random(3, 2, seed=2), 1)
    labellings = list(itertools.product([0, 1], repeat=3))
    total = torch.stack(
        [
            sum(scores[i, y[i]] for i in range(3))
            + sum(kernel[i, j] * mu[y[i], y[j]] for i in range(3) for j in range(i))
            for y in labellings
        ]
    )
    log_p = total - total.logsumexp(0)
    log_q = torch.stack([sum(q[i, y[i]].log() for i in range(3)) for y in labellings])
    expected = (log_q.exp() * (log_q - log_p)).sum()
    [value] = kl_divergence(scores, q, problem.message(q)) + total.logsumexp(0)
    torch.testing.assert_close(value, expected)


@pytest.mark.parametrize("compatibility", ["potts", "diagonal", "full"])
def test_convergent_updates_never_raise_the_divergence(photo, smooth_scores, compatibility):
    scores, image = tensors(photo, smooth_scores)
    options = {"compatibility": compatibility, "num_classes": 3, "self_term": False}
    for quality in ("exact", "accurate", "fast"):
        crf = DenseCRF(
            STRONG, quality=quality, inference="convergent", iterations=30, **options
        ).double()
        if crf.compatibility.values is not None:
            with torch.no_grad():
                # Repulsive in part: neither concave nor convex by itself.
                crf.compatibility.values.copy_(
                    torch.tensor([1.0, -0.8, 0.3])
                    if compatibility == "diagonal"
                    else torch.tensor([[1.0, 0.5, -1.0], [0.5, -0.6, 0.0], [-1.0, 0.0, 0.7]])
                )
        with torch.no_grad():
            kl = torch.stack([u.kl[0] for u in crf.updates(scores, image)])
        # To the last digits: the sums hold some hundred terms of the size of the largest.
        assert (kl.diff() <= 1e-12 * kl.abs().max()).all(), (quality, kl.diff().max())
        assert kl[-1] < kl[0]


@pytest.mark.parametrize("quality", ["fast", "accurate"])
@pytest.mark.parametrize("compatibility", ["potts", "diagonal"])
def test_convergent_updates_of_the_compiled_kernels_never_raise_the_divergence(
    photo, smooth_scores, quality, compatibility
):
    """To what float32 can tell: a rounding error of every marginal."""
    scores, image = (t.float() for t in tensors(photo, smooth_scores, height=37, width=29))
    crf = DenseCRF(
        STRONG,
        quality=quality,
        inference="convergent",
        iterations=30,
        compatibility=compatibility,
        num_classes=3,
        self_term=False,
        backend="numba",
    )
    with torch.no_grad():
        if crf.compatibility.values is not None:
            crf.compatibility.values.copy_(torch.tensor([1.0, -0.8, 0.3]))
        kl = torch.cat([u.kl for u in crf.updates(scores, image)])
    assert (kl.diff() <= torch.finfo(torch.float32).eps * kl.abs().max()).all(), kl.diff().max()
    assert kl[-1] < kl[0]


def test_plain_updates_oscillate_where_convergent_ones_settle():
    """A pixel with one neighbour, repelled by it: both flip together for ever."""
    matrix = torch.tensor([[0.0, 1.0], [1.0, 0.0]], dtype=torch.float64)
    scores = torch.tensor([[0.1, 0.0], [0.1, 0.0]], dtype=torch.float64)
    mu = -6 * torch.eye(2, dtype=torch.float64)
    problem = problem_of(matrix, scores, mu, self_term=True)
    q = problem.initial()
    for _ in range(51):
        before, q = q, parallel_update(problem, problem.message(q))
    assert (q - before).abs().max() > 0.9

    q, shift = problem.initial(), convexity_shift(problem)
    for _ in range(400):
        before, q = q, convergent_update(problem, q, problem.message(q), shift)
    assert (q - before).abs().max() < 1e-8
    torch.testing.assert_close(parallel_update(problem, problem.message(q)), q, rtol=0, atol=1e-6)


def test_convergent_reaches_a_stationary_point(photo, smooth_scores):
    scores, image = tensors(photo, smooth_scores, height=5, width=7)
    options = {"quality": "exact", "self_term": False}
    crf = DenseCRF(STRONG, inference="convergent", iterations=3000, **options).double()
    with torch.no_grad():
        *_, last = crf.updates(scores, image, tolerance=1e-12)
        problem = crf.problem(scores, image)
        q = last.marginals[0].flatten(1).T
        torch.testing.assert_close(
            torch.softmax(problem.scores + problem.message(q), 1), q, rtol=0, atol=1e-6
        )


@pytest.mark.parametrize("inference", ["parallel", "convergent"])
def test_sequential_updates_descend_to_the_same_fixed_point(photo, smooth_scores, inference):
    scores, image = tensors(photo, smooth_scores, height=5, width=7)
    params = CRFParameters(w_spatial=1, w_bilateral=1)
    crf = DenseCRF(
        params, quality="exact", self_term=False, iterations=60, inference=inference
    ).double()
    with torch.no_grad():
        problem = crf.problem(scores, image)
        trace = sequential_mean_field(problem, 25)
        kl = torch.cat([kl_divergence(problem.scores, q, problem.message(q)) for q in trace])
        assert (kl.diff() <= 1e-12 * kl.abs().max()).all()
        reached = crf(scores, image)[0].flatten(1).T
        torch.testing.assert_close(trace[-1], reached, rtol=0, atol=1e-8)


@pytest.mark.parametrize("kind", ["diagonal", "full"])
def test_sequential_updates_with_compatibilities_reach_the_parallel_fixed_point(
    photo, smooth_scores, kind
):
    scores, image = tensors(photo, smooth_scores, height=4, width=5)
    crf = DenseCRF(
        CRFParameters(w_spatial=1, w_bilateral=1),
        quality="exact",
        self_term=False,
        iterations=80,
        compatibility=kind,
        num_classes=3,
    ).double()
    with torch.no_grad():
        mu = crf.compatibility.values
        mu.mul_(torch.tensor([0.5, 1.0, 0.8]).double())
        trace = sequential_mean_field(crf.problem(scores, image), 40)
        plain = DenseCRF(crf.crf_parameters(), quality="exact", self_term=False).double()
        potts = sequential_mean_field(plain.problem(scores, image), 40)
        reached = crf(scores, image)[0].flatten(1).T
    torch.testing.assert_close(trace[-1], reached, rtol=0, atol=1e-8)
    assert not torch.allclose(trace[-1], potts[-1], atol=1e-4)


def test_updates_stop_at_the_tolerance_and_match_the_trace(photo, smooth_scores):
    scores, image = tensors(photo, smooth_scores)
    crf = DenseCRF(CRFParameters(w_spatial=1, w_bilateral=1), iterations=50).double()
    with torch.no_grad():
        updates = list(crf.updates(scores, image, tolerance=1e-4))
        trace = crf.trace(scores, image)
    assert 2 < len(updates) < 51
    assert [u.iteration for u in updates] == list(range(len(updates)))
    assert updates[-1].change <= 1e-4 < updates[-2].change
    for update in updates:
        torch.testing.assert_close(update.marginals, trace[update.iteration])


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_pixel_program_is_solved(random, scale):
    target = random(200, 5) * scale
    shift = random(200, seed=1).abs() * scale
    shift[:20] = 0
    q = solve_pixels(target, shift)
    torch.testing.assert_close(q.sum(1), torch.ones(200, dtype=torch.float64))
    slack = target - q.clamp(min=1e-300).log() - shift[:, None] * q
    slack = slack - (q * slack).sum(1, keepdim=True)
    assert (q * slack.abs()).max() < 1e-9 * (1 + scale)
    torch.testing.assert_close(q[:20], torch.softmax(target[:20], 1))


def test_newton_squares_the_error_of_the_logarithmic_equation(monkeypatch):
    """The equation log q + c q = r to the last digit in 8 steps, for any size of r and c."""
    monkeypatch.setattr(convergent, "LOG_STEPS", 8)
    right = torch.linspace(-60, 60, 241, dtype=torch.float64)[None].expand(4, -1)
    c = torch.tensor([1e-3, 1.0, 30.0, 1e3], dtype=torch.float64)[:, None]
    q = convergent._stationary(right, c)
    torch.testing.assert_close(q.log() + c * q, right, rtol=1e-13, atol=1e-13)


def test_pixel_program_gradcheck(random):
    target = random(6, 4).requires_grad_()
    shift = random(6, seed=1).abs().requires_grad_()
    assert torch.autograd.gradcheck(solve_pixels, (target, shift))


def test_learnt_compatibilities_start_as_potts(photo, smooth_scores):
    scores, image = tensors(photo, smooth_scores)
    with torch.no_grad():
        potts, diagonal, full = (
            DenseCRF(compatibility=c, num_classes=3).double()(scores, image)
            for c in ("potts", "diagonal", "full")
        )
    torch.testing.assert_close(diagonal, potts)
    torch.testing.assert_close(full, potts)


@pytest.mark.parametrize(
    ("first", "extra", "summed"),
    [
        ({"w_spatial": 1}, {"theta_position": 3}, {"w_spatial": 3}),
        ({"w_bilateral": 4}, {"theta_position": 80, "theta_colour": 13}, {"w_bilateral": 6}),
    ],
    ids=["spatial", "bilateral"],
)
def test_an_extra_kernel_adds_to_the_first(photo, smooth_scores, first, extra, summed):
    """Two kernels of the same widths are one with the summed weight."""
    scores, image = tensors(photo, smooth_scores)
    kernels = [KernelParameters(weight=2, **extra)]
    with torch.no_grad():
        split = DenseCRF(CRFParameters(**first), extra_kernels=kernels).double()(scores, image)
        whole = DenseCRF(CRFParameters(**summed)).double()(scores, image)
    torch.testing.assert_close(split, whole)


def test_convergent_refuses_unsymmetric_normalisation():
    with pytest.raises(ValueError, match="normalization: convergent inference needs"):
        DenseCRF(inference="convergent", normalization="after")


def test_strong_weights_make_the_difference(photo, smooth_scores):
    """Labels that repel: plain updates without self term raise the divergence on the way."""
    scores, image = tensors(photo, smooth_scores)
    values = {}
    for inference in ("parallel", "convergent"):
        crf = DenseCRF(
            STRONG,
            quality="exact",
            inference=inference,
            self_term=False,
            iterations=20,
            compatibility="diagonal",
            num_classes=3,
        ).double()
        with torch.no_grad():
            crf.compatibility.values.fill_(-0.5)
            values[inference] = np.array([u.kl.item() for u in crf.updates(scores, image)])
    assert np.diff(values["parallel"]).max() > 0.1
    assert values["convergent"][-1] < values["parallel"][-1]
