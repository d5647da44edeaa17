import numpy as np
import pytest

from napari_deepcrf.session.images import scores_from_class_indices, scores_from_values


def softmax(scores):
    e = np.exp(scores - scores.max(0))
    return e / e.sum(0)


def test_probabilities_come_back_from_their_scores():
    p = softmax(np.random.default_rng(0).normal(size=(4, 5, 7)))
    np.testing.assert_allclose(softmax(scores_from_values(p)), p, atol=1e-6)


def test_a_probability_of_zero_stays_finite():
    p = np.zeros((2, 3, 3))
    p[0] = 1
    assert np.isfinite(scores_from_values(p)).all()


def test_logits_are_taken_as_they_are():
    logits = np.random.default_rng(0).normal(size=(3, 5, 7)).astype(np.float32)
    np.testing.assert_array_equal(scores_from_values(logits), logits)


@pytest.mark.parametrize(
    "values", [np.zeros((5, 7)), np.zeros((1, 5, 7)), np.full((2, 5, 7), np.nan)]
)
def test_bad_probabilities_are_refused(values):
    with pytest.raises(ValueError, match=r"^probabilities: expected"):
        scores_from_values(values)


def test_labels_get_the_given_confidence():
    labels = np.array([[0, 1, 2]])
    p = softmax(scores_from_class_indices(labels, 3, 0.8))
    np.testing.assert_allclose(p[labels[0], 0, range(3)], 0.8, rtol=1e-6)
    np.testing.assert_allclose(p.sum(0), 1, rtol=1e-6)


@pytest.mark.parametrize(("labels", "confidence"), [([[3]], 0.9), ([[-1]], 0.9), ([[0]], 0.2)])
def test_bad_labels_and_confidences_are_refused(labels, confidence):
    with pytest.raises(ValueError, match="expected"):
        scores_from_class_indices(np.array(labels), 3, confidence)
