"""The search keeps what is better and never loses to its start."""

import numpy as np
import torch

from napari_deepcrf.crf import CRFParameters, DenseCRF
from napari_deepcrf.data.samples import Sample
from napari_deepcrf.models import DeepCRF
from napari_deepcrf.training.search import search_crf


class NoisyTwoHalves:
    """Images in two colours; their scores are right on average and noisy."""

    class_names = ("left", "right")

    def __len__(self):
        return 2

    def __getitem__(self, index):
        labels = np.zeros((30, 40), np.uint8)
        labels[:, 17 + 5 * index :] = 1
        return Sample(str(index), np.repeat((labels * 150)[..., None], 3, 2), labels)


def test_a_stronger_crf_is_found_for_noisy_scores(tiny_network, monkeypatch):
    def noisy(image):
        generator = torch.Generator().manual_seed(0)
        right = (image[:, :1] > 75).float() - 0.5
        noise = torch.randn(1, 1, *image.shape[2:], generator=generator)
        return torch.cat([-right - noise, right + noise], 1)

    network = tiny_network
    network.backbone.num_classes = 2
    model = DeepCRF(network, DenseCRF(), ("left", "right"))
    monkeypatch.setattr(model, "unary", noisy)
    start = CRFParameters(
        w_spatial=0.05, theta_gamma=1, w_bilateral=0.3, theta_alpha=20, theta_beta=20
    )
    trials = []
    best = search_crf(model, NoisyTwoHalves(), start, factors=(4.0, 0.5), on_trial=trials.append)
    assert len(trials) == 11
    assert best.mean_iou == max(trial.mean_iou for trial in trials)
    assert best.mean_iou > trials[0].mean_iou + 0.05
    assert best.parameters.w_bilateral > 0.3
