"""A batch of images in one lattice gives what its images give one by one."""

import pytest
import torch

from napari_deepcrf.crf import CRFParameters, DenseCRF
from napari_deepcrf.lattice import Lattice

PARAMETERS = CRFParameters(w_spatial=2, theta_gamma=2, w_bilateral=5, theta_alpha=15, theta_beta=25)
BATCH, LABELS = 3, 3
OPTIONS = {
    "fast": {},
    "accurate": {"quality": "accurate"},
    "exact": {"quality": "exact"},
    "none": {"normalization": "none"},
    "no self term": {"quality": "accurate", "self_term": False},
    "full": {"compatibility": "full", "num_classes": LABELS, "normalization": "after"},
    "convergent": {
        "inference": "convergent",
        "self_term": False,
        "compatibility": "diagonal",
        "num_classes": LABELS,
    },
}


def inputs(random, *shape):
    """Images of different contrast, so that lattices of unlike sizes meet."""
    contrast = torch.tensor([10.0, 40.0, 80.0]).view(-1, *[1] * (len(shape) + 1))
    image = 128 + contrast * random(BATCH, 3, *shape).float()
    return 2 * random(BATCH, LABELS, *shape, seed=1).float(), image


def run(crf, scores, image):
    """The trace, and the gradients of scores and parameters for a fixed direction."""
    leaf = scores.clone().requires_grad_()
    trace = crf.trace(leaf, image)
    upstream = torch.linspace(-1, 1, trace[:, 0].numel()).view_as(trace[:, 0]).roll(1, 1)
    loss = (trace * upstream[:, None]).sum()
    return trace.detach(), *torch.autograd.grad(loss, [leaf, *crf.parameters()])


@pytest.mark.parametrize("backend", ["torch", "numba"])
@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("shape", [(13, 9), (3, 7, 5)])
def test_a_batch_is_its_images_one_by_one(random, backend, name, shape):
    crf = DenseCRF(
        PARAMETERS, iterations=3, backend=backend, image_dims=len(shape), **OPTIONS[name]
    )
    if crf.compatibility.values is not None:
        with torch.no_grad():
            crf.compatibility.values.view(-1)[0].neg_()  # a label that repels itself
    scores, image = inputs(random, *shape)
    trace, by_scores, *by_parameters = run(crf, scores, image)
    singles = [run(crf, scores[b : b + 1], image[b : b + 1]) for b in range(BATCH)]
    close = {"rtol": 1e-5, "atol": 1e-6}
    torch.testing.assert_close(trace, torch.cat([s[0] for s in singles], 1), **close)
    torch.testing.assert_close(by_scores, torch.cat([s[1] for s in singles]), **close)
    for n, together in enumerate(by_parameters, start=2):
        apart = torch.stack([single[n] for single in singles])
        assert (together - apart.sum(0)).norm() <= 1e-4 * apart.abs().sum(0).norm()


@pytest.mark.parametrize("backend", ["torch", "numba"])
def test_images_of_a_lattice_share_no_vertex(random, backend):
    one = random(50, 3).float()
    options = {"ring": True, "passes": 2, "backend": backend}
    alone = Lattice.build(one, **options)
    both = Lattice.build(torch.cat([one, one]), images=2, **options)
    assert both.num_vertices == 2 * alone.num_vertices
    first, second = both.vertex.chunk(2)
    assert not set(first.flatten().tolist()) & set(second.flatten().tolist())
    assert torch.equal(*both.weight.chunk(2))


def test_divergences_of_a_batch_are_those_of_its_images(random):
    crf = DenseCRF(PARAMETERS, iterations=2)
    scores, image = inputs(random, 13, 9)
    together = torch.stack([u.kl for u in crf.updates(scores, image)])
    assert together.shape == (3, BATCH)
    for b in range(BATCH):
        part = slice(b, b + 1)
        alone = torch.cat([u.kl for u in crf.updates(scores[part], image[part])])
        torch.testing.assert_close(together[:, b], alone, rtol=1e-6, atol=1e-6)


def test_the_number_of_images_divides_the_points(random):
    with pytest.raises(ValueError, match="images: expected a divisor of 7 points, got 2"):
        Lattice.build(random(7, 2), images=2)
