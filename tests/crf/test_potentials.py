"""Scores from probabilities, labels and other tools' energies."""

import math

import numpy as np
import pytest
import torch

from napari_deepcrf.crf.potentials import (
    scores_from_energies,
    scores_from_labels,
    scores_from_probabilities,
)


def test_probabilities_come_back_from_their_scores(random):
    p = torch.softmax(random(5, 7, 3), 0)
    torch.testing.assert_close(torch.softmax(scores_from_probabilities(p), 0), p)


def test_a_probability_of_zero_keeps_a_finite_score():
    scores = scores_from_probabilities(torch.tensor([0.0, 1.0]), minimum=1e-4)
    torch.testing.assert_close(scores, torch.tensor([math.log(1e-4), 0.0]))


def test_labels_get_their_confidence_and_unlabelled_pixels_are_flat():
    labels = torch.tensor([[0, 1, 3]])
    p = scores_from_labels(labels, 3, confidence=0.8).exp()
    assert p.shape == (3, 1, 3)
    torch.testing.assert_close(p[:, 0, 0], torch.full((3,), 1 / 3))
    torch.testing.assert_close(p[:, 0, 1], torch.tensor([0.8, 0.1, 0.1]))
    torch.testing.assert_close(p[:, 0, 2], torch.tensor([0.1, 0.1, 0.8]))


def test_labels_agree_with_pydensecrf():
    utils = pytest.importorskip("pydensecrf.utils")
    labels = np.random.default_rng(0).integers(0, 4, (5, 7))
    energies = utils.unary_from_labels(labels, 3, gt_prob=0.7, zero_unsure=True)
    mine = scores_from_labels(torch.tensor(labels), 3, confidence=0.7)
    torch.testing.assert_close(mine, scores_from_energies(torch.tensor(energies), (5, 7)))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: scores_from_probabilities(torch.tensor([-0.1])), "probabilities: expected"),
        (lambda: scores_from_probabilities(torch.tensor([float("nan")])), "probabilities"),
        (lambda: scores_from_probabilities(torch.ones(2), minimum=0), "minimum: expected"),
        (lambda: scores_from_labels(torch.tensor([4]), 3), "labels: expected 0 to 3, got 4"),
        (lambda: scores_from_labels(torch.tensor([-1]), 3), "labels: expected 0 to 3, got -1"),
        (lambda: scores_from_labels(torch.tensor([1]), 1), "num_classes: expected at least 2"),
        (lambda: scores_from_labels(torch.tensor([1]), 2, confidence=0.5), "confidence"),
        (
            lambda: scores_from_energies(torch.ones(2, 7), (2, 3)),
            r"energies: expected shape \(L, 6",
        ),
        (lambda: scores_from_energies(torch.ones(6), (2, 3)), r"energies: expected .*got \(6,\)"),
    ],
)
def test_bad_values_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
