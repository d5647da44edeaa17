"""Every gradient of the CRF: exact for the filter that ran, and close to the true kernel's."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from napari_deepcrf.crf import CRFParameters, DenseCRF, KernelParameters, prepared
from napari_deepcrf.crf.features import PixelGrid

SMALL = CRFParameters(theta_gamma=1.3, theta_alpha=4, theta_beta=20)


@pytest.fixture
def generic_positions(monkeypatch):
    """Shift the pixel grid off the lattice's own points, and hold the lattice's origin in place.

    Pixels at x = 0 lie exactly between two simplices, and when rounding moves them from one to
    the other, vertices of zero weight come and go: there, finite differences say nothing.
    Derivatives by widths leave the mean feature where it is; so must the differences.
    """
    coordinates = PixelGrid.coordinates

    def shifted(self, *, coloured):
        planes = coordinates(self, coloured=coloured)
        planes[:2] += planes.new_tensor([0.37, 0.61])[:, None, None]
        return planes

    monkeypatch.setattr(PixelGrid, "coordinates", shifted)
    features_of = prepared.lattice_features
    places = {}

    def anchored(pixels, widths, method, *, coloured):
        features = features_of(pixels, widths, method, coloured=coloured)
        centre = features.detach().unflatten(0, (pixels.count, -1)).mean(1, keepdim=True)
        place = places.setdefault(centre.shape, centre)
        return features + (place - centre).expand(-1, math.prod(pixels.shape), -1).flatten(0, 1)

    monkeypatch.setattr(prepared, "lattice_features", anchored)


def gradcheck(crf, *, labels=3, shape=(5, 7), batch=2):
    generator = torch.Generator().manual_seed(0)
    image = 60 * torch.rand(batch, 3, *shape, generator=generator, dtype=torch.float64)
    scores = torch.randn(batch, labels, *shape, generator=generator, dtype=torch.float64)
    crf = crf.double()
    names = [name for name, _ in crf.named_parameters()]
    values = [p.detach().clone().requires_grad_() for p in crf.parameters()]

    def run(scores, *values):
        named = dict(zip(names, values, strict=True))
        return torch.func.functional_call(crf, named, (scores, image))

    return torch.autograd.gradcheck(
        run, (scores.requires_grad_(), *values), fast_mode=True, eps=1e-7, atol=1e-5
    )


@pytest.mark.usefixtures("generic_positions")
@pytest.mark.parametrize("quality", ["fast", "accurate", "exact"])
@pytest.mark.parametrize("normalization", ["symmetric", "before", "after", "none"])
def test_gradcheck(quality, normalization):
    crf = DenseCRF(SMALL, quality=quality, normalization=normalization, iterations=3)
    assert gradcheck(crf)


@pytest.mark.usefixtures("generic_positions")
@pytest.mark.parametrize(
    ("quality", "options"),
    [
        ("fast", {"compatibility": "diagonal", "self_term": False}),
        ("accurate", {"compatibility": "full", "self_term": False}),
        ("fast", {"extra_kernels": [KernelParameters(weight=2, theta_position=2)]}),
        ("fast", {"inference": "convergent", "self_term": False, "compatibility": "full"}),
        ("exact", {"inference": "convergent", "self_term": False}),
    ],
    ids=str,
)
def test_gradcheck_of_options(quality, options):
    crf = DenseCRF(SMALL, quality=quality, iterations=2, num_classes=3, **options)
    values = crf.compatibility.values
    if values is not None:
        # Away from Potts, with a negative eigenvalue.
        with torch.no_grad():
            values.add_(torch.linspace(-1.5, 0.7, values.numel()).view_as(values))
    assert gradcheck(crf, batch=1)


@pytest.mark.usefixtures("generic_positions")
@pytest.mark.parametrize("quality", ["fast", "accurate"])
def test_float32_kernels_follow_the_reference(photo, smooth_scores, quality):
    """Each gradient of the compiled kernels within 1e-4 of the float64 reference's."""
    image, scores = photo(height=21, width=31), smooth_scores(5, 21, 31)
    target = torch.tensor(scores.argmax(0)).roll(2, 1)[None]

    def gradients(dtype, backend):
        crf = DenseCRF(
            SMALL, quality=quality, backend=backend, compatibility="full", num_classes=5
        ).to(dtype)
        given = torch.tensor(scores, dtype=dtype)[None].requires_grad_()
        loss = torch.nn.functional.nll_loss(crf(given, torch.tensor(image)[None]).log(), target)
        return torch.autograd.grad(loss, [given, *crf.parameters()])

    pairs = zip(gradients(torch.float32, "auto"), gradients(torch.float64, "torch"), strict=True)
    for mine, reference in pairs:
        assert (mine.double() - reference).norm() <= 1e-4 * reference.norm()


@pytest.mark.parametrize(
    "options",
    [
        {"backend": "torch"},
        {"backend": "numba"},
        {"quality": "exact"},
        {"inference": "convergent", "self_term": False, "backend": "torch"},
    ],
    ids=str,
)
def test_second_derivatives_are_refused(random, options):
    scores, image = random(1, 3, 5, 7).float().requires_grad_(), 60 * random(1, 3, 5, 7).float()
    loss = DenseCRF(SMALL, iterations=1, **options)(scores, image).square().sum()
    with pytest.raises(NotImplementedError, match="create_graph: expected False"):
        torch.autograd.grad(loss, scores, create_graph=True)


def central_differences(loss, values, step=1e-4):
    return np.array(
        [(loss(values + d) - loss(values - d)) / (2 * step) for d in step * np.eye(len(values))]
    )


@pytest.mark.parametrize(("name", "corner"), [("astronaut", (30, 180)), ("chelsea", (60, 100))])
def test_all_nine_derivatives_on_a_photo(photo, brute_force, name, corner):
    """Against central differences of the brute-force CRF: their sign, within the lattice's error.

    The task is one that a CRF is for: find the photo's grey levels again from noisy scores.
    """
    image = photo(name, 27, 35, corner)
    labels = np.digitize(gaussian_filter(image.mean(0), 1.0), [60, 110, 160])
    noise = gaussian_filter(np.random.default_rng(0).standard_normal((4, 27, 35)), (0, 1, 1))
    scores = (labels == np.arange(4)[:, None, None]) + noise / noise.std()
    values = np.log([1, 1.5, 1.5, 2, 8, 8, 30, 30, 30])

    def params(log_values):
        v = np.exp(log_values).tolist()
        return CRFParameters(
            w_spatial=v[0],
            theta_gamma=tuple(v[1:3]),
            w_bilateral=v[3],
            theta_alpha=tuple(v[4:6]),
            theta_beta=tuple(v[6:]),
        )

    def exact_loss(log_values):
        marginals = brute_force(params(log_values)).trace(scores, image)[-1]
        return -np.log(np.take_along_axis(marginals, labels[None], 0)).mean()

    differences = central_differences(exact_loss, values)
    target = torch.tensor(labels)[None]
    for quality, tolerance in [("exact", 1e-4), ("accurate", 0.1), ("fast", 0.3)]:
        crf = DenseCRF(params(values), quality=quality, backend="torch").double()
        marginals = crf(torch.tensor(scores)[None], torch.tensor(image)[None])
        loss = torch.nn.functional.nll_loss(marginals.log(), target)
        gradients = torch.autograd.grad(loss, list(crf.parameters()))
        analytic = torch.cat([g.reshape(-1) for g in gradients]).numpy()
        assert analytic.shape == (9,)
        error = np.abs(analytic - differences).max() / np.abs(differences).max()
        assert error < tolerance, (quality, analytic, differences)
        if quality != "fast":
            assert (np.sign(analytic) == np.sign(differences)).all(), (analytic, differences)


def test_fast_derivatives_are_right_within_the_lattices_own_error(photo, monkeypatch):
    """The lattice's own error: how derivatives scatter as its origin moves, which K never feels.

    No derivative is further from the exact one than four standard deviations of that, and each has
    its sign, as all nine of this task are larger than that error.
    """
    image = photo("chelsea", 27, 35, (60, 100))
    labels = np.digitize(gaussian_filter(image.mean(0), 1.0), [60, 110, 160])
    noise = gaussian_filter(np.random.default_rng(0).standard_normal((4, 27, 35)), (0, 1, 1))
    scores = (labels == np.arange(4)[:, None, None]) + noise / noise.std()
    params = CRFParameters(
        w_spatial=1, theta_gamma=(1.5, 1.5), w_bilateral=2, theta_alpha=(8, 8), theta_beta=(30,) * 3
    )
    features_of = prepared.lattice_features

    def derivatives(quality, seed=None):
        def moved(*args, **options):
            features = features_of(*args, **options)
            generator = torch.Generator().manual_seed(seed)
            return features + 4 * torch.rand(features.shape[1], generator=generator)

        if seed is not None:
            monkeypatch.setattr(prepared, "lattice_features", moved)
        crf = DenseCRF(params, quality=quality, backend="torch").double()
        marginals = crf(torch.tensor(scores)[None], torch.tensor(image)[None])
        loss = torch.nn.functional.nll_loss(marginals.log(), torch.tensor(labels)[None])
        gradients = torch.autograd.grad(loss, list(crf.parameters()))
        monkeypatch.undo()
        return torch.cat([g.reshape(-1) for g in gradients]).numpy()

    exact, usual = derivatives("exact"), derivatives("fast")
    elsewhere = np.stack([derivatives("fast", seed) for seed in range(8)])
    own_error = elsewhere.std(0)
    assert (np.abs(usual - exact) <= 4 * own_error).all(), (usual, exact, own_error)
    assert (np.abs(exact) > own_error).all()
    assert (np.sign(usual) == np.sign(exact)).all()


def test_swapped_blur_order_spoils_the_widths_derivatives(photo, smooth_scores, monkeypatch):
    image, scores = photo(height=20, width=27), smooth_scores(4, 20, 27)

    def gradients():
        crf = DenseCRF(SMALL, backend="torch").double()
        marginals = crf(torch.tensor(scores)[None], torch.tensor(image)[None])
        loss = -marginals[:, 0].log().mean()
        return torch.autograd.grad(loss, [crf.bilateral.log_theta_colour])[0]

    right = gradients()
    from napari_deepcrf.lattice import torch_ops

    blur = torch_ops.blur
    monkeypatch.setattr(torch_ops, "blur", lambda a, z, reverse: blur(a, z, reverse=False))
    assert (gradients() - right).norm() > 0.01 * right.norm()
