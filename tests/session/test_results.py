import itertools

import numpy as np
import pytest
import torch

from napari_deepcrf.crf import CRFParameters
from napari_deepcrf.session import CRFSettings, Identity
from napari_deepcrf.session.results import ResultBuilder, memory_needed
from napari_deepcrf.session.settings import Keep

ALL = Keep()
IDENTITY = Identity(image="a", unary="m", settings=CRFSettings(parameters=CRFParameters()))


def build(marginals, announced, keep=ALL):
    unary = np.zeros(marginals.shape[1:], np.float32)
    builder = ResultBuilder(unary, announced, keep)
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


def test_what_a_view_begins_with_is_known():
    labels = torch.tensor([[0, 0, 0, 2], [0, 2, 2, 1]])
    q = torch.nn.functional.one_hot(labels, 3).permute(2, 0, 1)[None].float()
    builder = ResultBuilder(np.log(q[0].numpy() + 0.5), 0, ALL)
    builder.add(q[0])
    result = builder.build(IDENTITY, ("a", "b", "c"))
    assert result.largest_class == 2
    np.testing.assert_allclose(result.score_range, np.log((0.5, 1.5)))
    assert build(q[:, :, :1, :3], 0).largest_class == 0


@pytest.mark.parametrize("keep", [ALL, Keep(present_only=True)])
def test_rows_of_some_classes_are_told_by_their_classes(keep):
    torch.manual_seed(0)
    q = torch.softmax(3 * torch.randn(2, 2, 7, 5), 1)
    builder = ResultBuilder(np.zeros((2, 7, 5), np.float32), 1, keep, rows=(1, 4))
    for marginals in q:
        builder.add(marginals)
    result = builder.build(IDENTITY, ("a", "b", "c", "d", "e"))
    assert result.classes == (1, 4)
    assert result.kept_names == ("b", "e")
    np.testing.assert_array_equal(result.labels, np.array([1, 4])[q[-1].argmax(0).numpy()])
    row = result.marginals[1, 1, 3, 2]
    assert result.probability(4, 1, 3, 2) == float(row)
    assert result.probability(0, 1, 3, 2) is None


def test_updates_left_out_are_cut_off():
    q = torch.softmax(torch.randn(2, 3, 4, 4), 1)
    result = build(q, 9)
    assert result.iterations == 1
    assert result.marginals.shape == (3, 2, 4, 4)


def some_marginals():
    """4 updates of 3 classes on 7×5 pixels, the second class the best one nowhere."""
    torch.manual_seed(1)
    scores = torch.randn(4, 3, 7, 5)
    scores[:, 1] -= 20
    return torch.softmax(scores, 1)


def arrays(result):
    return result.unary, result.marginals, result.history, result.uncertainty


def test_marginals_may_be_kept_of_the_last_update_alone():
    q = some_marginals()
    result = build(q, 3, Keep(last_only=True))
    assert result.marginals.shape == (3, 1, 7, 5)
    assert result.first_update == 3
    assert result.history.shape == (4, 7, 5)
    np.testing.assert_allclose(result.marginals[:, 0], q[3].numpy(), atol=1e-3)
    assert result.probability(2, 3, 4, 1) == float(result.marginals[2, 0, 4, 1])
    assert result.probability(2, 2, 4, 1) is None


def test_marginals_may_be_kept_of_present_classes_alone():
    q = some_marginals()
    result = build(q, 3, Keep(present_only=True))
    assert result.classes == (0, 2)
    assert result.kept_names == ("a", "c")
    assert result.unary.shape == (2, 7, 5)
    np.testing.assert_allclose(result.marginals.swapaxes(0, 1), q[:, [0, 2]].numpy(), atol=1e-3)
    np.testing.assert_array_equal(result.history, q.argmax(1).numpy())
    assert result.probability(2, 1, 3, 3) == float(result.marginals[1, 1, 3, 3])
    assert result.probability(1, 1, 3, 3) is None


def test_memory_is_what_the_arrays_take():
    for keep in (Keep(), Keep(last_only=True)):
        needed = memory_needed(3, 3, 7, 5, keep)
        assert needed == sum(a.nbytes for a in arrays(build(some_marginals(), 3, keep)))
    least = Keep(present_only=True, last_only=True)
    result = build(some_marginals(), 3, least)
    assert sum(a.nbytes for a in arrays(result)) < memory_needed(3, 3, 7, 5, least)


def test_of_two_equal_classes_the_first_is_the_label():
    q = torch.tensor([0.2, 0.4, 0.4])[None, :, None, None].expand(1, 3, 4, 5)
    result = build(q, 0)
    assert (result.labels == 1).all()
    assert (result.uncertainty == 1).all()
