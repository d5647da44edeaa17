"""Marginals against the brute-force CRF, and against the implementation everybody knows.

On the reference kernels: that compiled ones give the same is tested beside them.
"""

import numpy as np
import pytest
import torch

from napari_deepcrf.crf import CRFParameters, DenseCRF

PARAMS = CRFParameters()


def run(crf, scores, image):
    with torch.no_grad():
        return crf.trace(torch.tensor(scores)[None], torch.tensor(image)[None])[:, 0].numpy()


def error(result, expected):
    agreement = (result[-1].argmax(0) == expected[-1].argmax(0)).mean()
    return np.abs(result[-1] - expected[-1]).mean(), agreement


@pytest.mark.parametrize("normalization", ["symmetric", "before", "after", "none"])
@pytest.mark.parametrize("self_term", [True, False])
def test_exact_quality_is_the_brute_force_crf(
    photo, smooth_scores, brute_force, normalization, self_term
):
    image, scores = photo(height=13, width=17), smooth_scores(4, 13, 17)
    params = CRFParameters(theta_gamma=(2, 3), theta_alpha=(10, 8), theta_beta=(20, 13, 30))
    options = {"normalization": normalization, "self_term": self_term}
    crf = DenseCRF(params, quality="exact", **options).double()
    expected = brute_force(params, **options).trace(scores, image)
    np.testing.assert_allclose(run(crf, scores, image), expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("name", "corner", "theta_alpha", "theta_beta"),
    [
        ("astronaut", (30, 180), 80, 13),
        ("chelsea", (60, 100), 80, 13),
        ("coffee", (100, 200), 20, 13),
        ("camera", (100, 200), 40, 20),
    ],
)
def test_accurate_quality_on_photos(
    photo, smooth_scores, brute_force, name, corner, theta_alpha, theta_beta
):
    image, scores = photo(name, corner=corner), smooth_scores(21, 40, 53)
    params = CRFParameters(theta_alpha=theta_alpha, theta_beta=theta_beta)
    expected = brute_force(params).trace(scores, image)
    mean, agreement = error(
        run(DenseCRF(params, quality="accurate", backend="torch"), scores, image), expected
    )
    assert mean <= 0.00125
    assert agreement >= 0.985


def test_qualities_are_ordered(photo, smooth_scores, brute_force):
    image, scores = photo(), smooth_scores(21, 40, 53)
    expected = brute_force(PARAMS).trace(scores, image)
    fast, accurate = (
        error(run(DenseCRF(PARAMS, quality=q, backend="torch"), scores, image), expected)
        for q in ("fast", "accurate")
    )
    assert accurate[0] < 0.5 * fast[0]
    assert accurate[1] > fast[1]


def test_five_channels(photo, smooth_scores, brute_force):
    image = np.concatenate([photo(), photo("chelsea")[:2]])
    scores = smooth_scores(5, 40, 53)
    params = CRFParameters(theta_beta=(20, 20, 20, 30, 30))
    expected = brute_force(params).trace(scores, image)
    mean, agreement = error(
        run(DenseCRF(params, quality="accurate", channels=5, backend="torch"), scores, image),
        expected,
    )
    assert mean < 0.004
    assert agreement > 0.97


def test_volumes(brute_force, smooth_scores, photo):
    rows = photo(height=40, width=13)
    volume = np.ascontiguousarray(rows.reshape(3, 5, 8, 13))
    scores = np.ascontiguousarray(smooth_scores(3, 40, 13).reshape(3, 5, 8, 13))
    params = CRFParameters(theta_gamma=(1, 2, 2), theta_alpha=(4, 10, 10), theta_beta=30)
    expected = brute_force(params).trace(scores, volume)
    crf = DenseCRF(params, quality="exact", image_dims=3).double()
    np.testing.assert_allclose(run(crf, scores, volume), expected, rtol=1e-5, atol=1e-7)
    mean, _ = error(
        run(DenseCRF(params, quality="accurate", image_dims=3, backend="torch"), scores, volume),
        expected,
    )
    assert mean < 0.01


@pytest.mark.parametrize("quality", ["fast", "accurate"])
def test_the_default_kernels_take_volumes(smooth_scores, photo, quality):
    volume = torch.tensor(photo(height=35, width=13).reshape(3, 5, 7, 13))[None]
    scores = torch.tensor(smooth_scores(3, 35, 13).reshape(3, 5, 7, 13))[None]
    params = CRFParameters(theta_gamma=(1, 2, 2), theta_alpha=(4, 10, 10), theta_beta=30)
    with torch.no_grad():
        default, reference = (
            DenseCRF(params, quality=quality, image_dims=3, backend=backend)(scores, volume)
            for backend in ("auto", "torch")
        )
    torch.testing.assert_close(default, reference, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("channels", [1, 3])
def test_labels_are_those_of_pydensecrf(photo, smooth_scores, channels):
    densecrf = pytest.importorskip("pydensecrf.densecrf")
    image, scores = photo(height=60, width=77)[:channels], smooth_scores(7, 60, 77)
    peer = densecrf.DenseCRF2D(77, 60, 7)
    peer.setUnaryEnergy(np.ascontiguousarray(-scores.reshape(7, -1)))
    peer.addPairwiseGaussian(sxy=3, compat=3)
    y, x = np.mgrid[:60, :77].astype(np.float32)
    features = np.stack([x / 80, y / 80, *(image / 13)]).reshape(2 + channels, -1)
    peer.addPairwiseEnergy(np.ascontiguousarray(features), compat=10)
    expected = np.array(peer.inference(5)).reshape(7, 60, 77)
    result = run(DenseCRF(PARAMS, backend="torch"), scores, image)[-1]
    assert (result.argmax(0) == expected.argmax(0)).mean() >= 0.99
    assert np.abs(result - expected).mean() < 1e-4
