"""Properties that hold for any image: hypothesis draws the sizes, widths and scores."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from napari_deepcrf.crf import CRFParameters, DenseCRF

bounded = settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)

sizes = st.sampled_from([(1, 1), (1, 9), (9, 1), (2, 3), (8, 11)])
widths = st.floats(0.05, 1e4)
weights = st.floats(1e-3, 1e3)


@st.composite
def problems(draw, max_labels=5, channels=st.integers(1, 4)):  # noqa: B008 - a strategy is a value
    generator = torch.Generator().manual_seed(draw(st.integers(0, 1000)))
    height, width = draw(sizes)
    labels, channels = draw(st.integers(1, max_labels)), draw(channels)
    scores = torch.randn(1, labels, height, width, generator=generator)
    scores = scores * draw(st.sampled_from([0.0, 1.0, 1e4]))
    image = torch.rand(1, channels, height, width, generator=generator) * draw(
        st.sampled_from([0.0, 1.0, 255.0])
    )
    params = CRFParameters(
        w_spatial=draw(weights),
        theta_gamma=draw(widths),
        w_bilateral=draw(weights),
        theta_alpha=draw(widths),
        theta_beta=draw(widths),
    )
    return scores, image, params


@bounded
@given(
    problem=problems(),
    quality=st.sampled_from(["fast", "accurate", "exact"]),
    normalization=st.sampled_from(["symmetric", "before", "after", "none"]),
    self_term=st.booleans(),
)
def test_marginals_are_distributions(problem, quality, normalization, self_term):
    scores, image, params = problem
    crf = DenseCRF(
        params,
        quality=quality,
        normalization=normalization,
        self_term=self_term,
        backend="torch",
    )
    trace = crf.trace(scores, image)
    assert trace.shape == (6, *scores.shape)
    assert torch.isfinite(trace).all()
    assert trace.min() >= 0
    torch.testing.assert_close(trace.sum(2), torch.ones_like(trace[:, :, 0]))
    gradients = torch.autograd.grad(
        trace[-1].square().sum(), list(crf.parameters()), allow_unused=True
    )
    assert all(torch.isfinite(g).all() for g in gradients if g is not None)


@bounded
@given(
    problem=problems(max_labels=4, channels=st.just(3)),
    quality=st.sampled_from(["fast", "accurate"]),
    normalization=st.sampled_from(["symmetric", "before", "after", "none"]),
    self_term=st.booleans(),
)
def test_marginals_of_the_default_kernels_are_distributions(
    problem, quality, normalization, self_term
):
    """Few labels and one number of channels, as every other is compiled apart."""
    scores, image, params = problem
    crf = DenseCRF(params, quality=quality, normalization=normalization, self_term=self_term)
    leaf = scores.requires_grad_()
    trace = crf.trace(leaf, image)
    assert torch.isfinite(trace).all()
    assert trace.min() >= 0
    torch.testing.assert_close(trace.sum(2), torch.ones_like(trace[:, :, 0]))
    gradients = torch.autograd.grad(trace[-1].square().sum(), [leaf, *crf.parameters()])
    assert all(torch.isfinite(g).all() for g in gradients)


@bounded
@given(problem=problems())
def test_convergent_marginals_are_distributions(problem):
    scores, image, params = problem
    crf = DenseCRF(params, inference="convergent", self_term=False, backend="torch")
    with torch.no_grad():
        marginals = crf(scores, image)
    assert torch.isfinite(marginals).all()
    torch.testing.assert_close(marginals.sum(1), torch.ones_like(marginals[:, 0]))


@bounded
@given(problem=problems(), seed=st.integers(0, 100))
def test_label_order_is_of_no_account(problem, seed):
    scores, image, params = problem
    order = torch.randperm(scores.shape[1], generator=torch.Generator().manual_seed(seed))
    crf = DenseCRF(params, backend="torch").double()
    with torch.no_grad():
        expected = crf(scores.double(), image)[:, order]
        torch.testing.assert_close(crf(scores.double()[:, order], image), expected)


@bounded
@given(problem=problems(), axis=st.sampled_from([2, 3]))
def test_flipping_the_image_flips_the_exact_marginals(problem, axis):
    scores, image, params = problem
    crf = DenseCRF(params, quality="exact").double()
    with torch.no_grad():
        expected = crf(scores.double(), image).flip(axis)
        flipped = crf(scores.double().flip(axis), image.flip(axis))
    torch.testing.assert_close(flipped, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("quality", "limit"), [("accurate", 0.002), ("fast", 0.006)])
def test_flipping_moves_lattice_marginals_within_their_error(photo, smooth_scores, quality, limit):
    """The lattice has no mirror symmetry of its own; its error bounds what a flip can change."""
    image = torch.tensor(photo(height=30, width=39))[None]
    scores = torch.tensor(smooth_scores(5, 30, 39))[None]
    crf = DenseCRF(quality=quality, backend="torch")
    with torch.no_grad():
        expected = crf(scores, image).flip(3)
        flipped = crf(scores.flip(3), image.flip(3))
    assert (flipped - expected).abs().mean() < limit


@pytest.mark.parametrize("backend", ["torch", "auto"])
def test_runs_are_identical(photo, smooth_scores, backend):
    image = torch.tensor(photo())[None]
    scores = torch.tensor(smooth_scores(5, 40, 53))[None]
    with torch.no_grad():
        first, second = (DenseCRF(backend=backend)(scores, image) for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"normalization": "none"},
        {"compatibility": "full", "num_classes": 3},
        {"quality": "accurate"},
        {"self_term": False},
        {"inference": "convergent", "self_term": False},
    ],
    ids=str,
)
def test_threads_change_neither_marginals_nor_gradients(random, options):
    size = (190, 181)  # more pixels than one thread takes of a sum
    image = torch.nn.functional.avg_pool2d(random(1, 3, *size).float() * 60 + 128, 3, 1, 1)
    scores = random(1, 3, *size, seed=1).float().requires_grad_()
    crf = DenseCRF(CRFParameters(theta_alpha=20), iterations=2, **options)
    results = []
    for threads in (1, 2, 3):  # the fixture of all tests sets it back
        torch.set_num_threads(threads)
        marginals = crf(scores, image)
        upstream = marginals.detach() - 0.3
        results.append(
            [marginals, *torch.autograd.grad(marginals, [scores, *crf.parameters()], upstream)]
        )
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize("quality", ["fast", "accurate"])
def test_threads_change_no_divergence(random, quality):
    size = (190, 181)
    image, scores = random(1, 3, *size).float() * 60 + 128, random(1, 3, *size, seed=1).float()
    crf = DenseCRF(CRFParameters(theta_alpha=20), iterations=1, quality=quality)
    results = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        with torch.no_grad():
            results.append(torch.cat([u.kl for u in crf.updates(scores, image)]))
    assert all(torch.equal(results[0], other) for other in results[1:])


@pytest.mark.parametrize("name", ["theta_gamma", "theta_alpha", "theta_beta"])
def test_widths_beyond_the_keys_are_named(photo, smooth_scores, name):
    image, scores = photo(height=13, width=9), smooth_scores(2, 13, 9)
    crf = DenseCRF(CRFParameters(**{name: 1e-6}), backend="torch")
    with pytest.raises(ValueError, match=f"{name}=.*widths too small"):
        crf(torch.tensor(scores)[None], torch.tensor(image)[None])
