import itertools

import numpy as np
import torch

from napari_deepcrf.crf import CRFParameters
from napari_deepcrf.session import CRFSettings, Identity
from napari_deepcrf.session.results import ResultBuilder, memory_needed

IDENTITY = Identity(image="a", unary="m", settings=CRFSettings(parameters=CRFParameters()))


def build(marginals, announced):
    unary = np.zeros(marginals.shape[1:], np.float32)
    builder = ResultBuilder(unary, announced)
    for q in marginals:
        builder.add(q)
    return builder.build(IDENTITY, ("a", "b", "c"))


def test_arrays_are_laid_out_for_a_viewer():
    torch.manual_seed(0)
    q = torch.softmax(3 * torch.randn(4, 3, 7, 5), 1)
    result = build(q, 3)
    assert result.marginals.shape == (3, 4, 7, 5)
    assert result.iterations == 3
    np.testing.assert_allclose(result.marginals.swapaxes(0, 1), q.numpy(), atol=1e-3)
    np.testing.assert_array_equal(result.history, q.argmax(1).numpy())
    np.testing.assert_array_equal(result.labels, q[-1].argmax(0).numpy())
    top = np.sort(q.numpy(), axis=1)
    np.testing.assert_allclose(result.uncertainty, 1 - (top[:, -1] - top[:, -2]), atol=1e-3)
    expected = [(a.argmax(0) != b.argmax(0)).float().mean() for a, b in itertools.pairwise(q)]
    np.testing.assert_allclose(result.changed, expected, rtol=1e-6)


def test_updates_left_out_are_cut_off():
    q = torch.softmax(torch.randn(2, 3, 4, 4), 1)
    result = build(q, 9)
    assert result.iterations == 1
    assert result.marginals.shape == (3, 2, 4, 4)


def test_memory_is_what_the_arrays_take():
    result = build(torch.softmax(torch.randn(4, 3, 7, 5), 1), 3)
    arrays = (result.unary, result.marginals, result.history, result.uncertainty)
    assert memory_needed(3, 3, 7, 5) == sum(a.nbytes for a in arrays)
