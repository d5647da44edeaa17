"""The search keeps what is better and never loses to its start."""

import numpy as np
import pytest
import torch

from napari_deepcrf.crf import CRFParameters, DenseCRF
from napari_deepcrf.data.samples import Sample
from napari_deepcrf.models import DeepCRF
from napari_deepcrf.training.evaluate import evaluate
from napari_deepcrf.training.search import SEARCHED, search_crf


class NoisyTwoHalves:
    """Images in two colours; their scores are right on average and noisy."""

    class_names = ("left", "right")

    def __len__(self):
        return 2

    def __getitem__(self, index):
        labels = np.zeros((30, 40), np.uint8)
        labels[:, 17 + 5 * index :] = 1
        return Sample(str(index), np.repeat((labels * 150)[..., None], 3, 2), labels)


START = CRFParameters(w_spatial=0.05, theta_gamma=1, w_bilateral=0.3, theta_alpha=20, theta_beta=20)


@pytest.fixture
def model(tiny_network, monkeypatch):
    def noisy(image):
        generator = torch.Generator().manual_seed(0)
        right = (image[:, :1] > 75).float() - 0.5
        noise = torch.randn(1, 1, *image.shape[2:], generator=generator)
        return torch.cat([-right - noise, right + noise], 1)

    tiny_network.backbone.num_classes = 2
    crf = DenseCRF(iterations=3, normalization="before", backend="torch")
    model = DeepCRF(tiny_network, crf, ("left", "right"))
    monkeypatch.setattr(model, "unary", noisy)
    return model


def test_a_stronger_crf_is_found_for_noisy_scores(model):
    seen = []
    search = search_crf(
        model, NoisyTwoHalves(), START, random=0, factors=(4.0, 0.5), passes=1, on_trial=seen.append
    )
    assert search.trials == tuple(seen)
    assert len(seen) == 11
    assert search.trials[0].parameters == START
    assert search.best.mean_iou == max(trial.mean_iou for trial in seen)
    assert search.best.mean_iou > seen[0].mean_iou + 0.05
    assert search.best.parameters.w_bilateral > 0.3


def test_random_points_move_every_parameter_and_come_again_with_their_seed(model):
    settings = {"random": 4, "spread": 3.0, "factors": (), "seed": 5}
    first = search_crf(model, NoisyTwoHalves(), START, **settings)
    assert first == search_crf(model, NoisyTwoHalves(), START, **settings)
    assert len(first.trials) == 5
    for name in SEARCHED:
        values = {getattr(trial.parameters, name) for trial in first.trials}
        assert len(values) == 5
        ratios = [value / getattr(START, name) for value in values]
        assert min(ratios) >= 1 / 3
        assert max(ratios) <= 3
    other = search_crf(model, NoisyTwoHalves(), START, **{**settings, "seed": 6})
    assert other.trials[1:] != first.trials[1:]


def test_a_trial_is_what_the_models_own_crf_gives_with_those_numbers(model):
    search = search_crf(model, NoisyTwoHalves(), START, random=1, factors=())
    trial = search.trials[1]
    model.crf = DenseCRF(trial.parameters, iterations=3, normalization="before", backend="torch")
    figures = evaluate(model, NoisyTwoHalves())
    assert trial.mean_iou == pytest.approx(figures.joint.mean, abs=2e-3)  # scores kept as float16


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"start": CRFParameters(theta_alpha=(80, 60))}, "one number for theta_alpha"),
        ({"random": -1}, "random, passes: expected at least 0"),
        ({"spread": 0.5}, "spread, factors: expected"),
    ],
)
def test_bad_settings_are_named(model, setting, message):
    with pytest.raises(ValueError, match=message):
        search_crf(model, NoisyTwoHalves(), **{"start": START, **setting})
