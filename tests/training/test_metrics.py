"""IoU per class, void left out, absent classes left out of the mean."""

import math

import numpy as np
import pytest
import torch

from napari_deepcrf.data.samples import DatasetError, Sample
from napari_deepcrf.training.evaluate import evaluate
from napari_deepcrf.training.metrics import IoU, IoUMeter, boundary_band, measure_iou


def test_iou_by_hand():
    meter = IoUMeter(("a", "b", "c"))
    meter.update(torch.tensor([[0, 0, 1, 1]]), torch.tensor([[0, 1, 1, 255]]))
    iou = meter.compute()
    assert iou.as_dict()["a"] == pytest.approx(1 / 2)
    assert iou.as_dict()["b"] == pytest.approx(1 / 2)
    assert math.isnan(iou.as_dict()["c"])
    assert list(iou.present()) == ["a", "b"]
    assert iou.mean == pytest.approx(0.5)
    assert iou.pixel_accuracy == pytest.approx(2 / 3)
    assert iou.mean_of(("a",)) == pytest.approx(0.5)


def test_batches_add_up():
    generator = torch.Generator().manual_seed(0)
    predicted, truth = (torch.randint(0, 4, (5, 7, 9), generator=generator) for _ in range(2))
    whole, parts = IoUMeter(tuple("abcd")), IoUMeter(tuple("abcd"))
    whole.update(predicted, truth)
    for one, other in zip(predicted, truth, strict=True):
        parts.update(one[None], other[None])
    assert whole.compute() == parts.compute()


def test_the_boundary_band_surrounds_changes_of_label():
    labels = torch.zeros(9, 12, dtype=torch.uint8)
    labels[:, 6:] = 3
    band = boundary_band(labels, 1)
    assert band.any(0).nonzero().flatten().tolist() == [5, 6]
    assert boundary_band(labels, 3).all(0).nonzero().flatten().tolist() == [3, 4, 5, 6, 7, 8]
    assert not boundary_band(torch.zeros(5, 5), 4).any()
    labels[3, 2] = 255
    assert boundary_band(labels, 1)[2:5, 2].all()


class Halves:
    """Two images, dark on the left and bright on the right, and a model that sees it."""

    class_names = ("dark", "bright")

    def __init__(self, labels: np.ndarray) -> None:
        self.labels = labels

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> Sample:
        image = np.zeros((12, 16, 3), np.uint8)
        image[:, 8:] = 255
        return Sample(f"image {index}", image, self.labels)


class Threshold(torch.nn.Module):
    """Scores by brightness; the CRF of the model that has none."""

    class_names = Halves.class_names

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(1.0))

    def unary(self, image: torch.Tensor) -> torch.Tensor:
        bright = image.mean(1, keepdim=True) / 255 - 0.5
        return torch.cat([-bright, bright], 1) * self.scale

    def crf(self, scores: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
        return scores.softmax(1)


def halves() -> np.ndarray:
    labels = np.zeros((12, 16), np.uint8)
    labels[:, 8:] = 1
    return labels


def test_evaluation_tells_how_far_it_is():
    told = []
    figures = evaluate(Threshold(), Halves(halves()), on_progress=lambda *done: told.append(done))
    assert told == [(1, 2), (2, 2)]
    assert (figures.unary.mean, figures.joint.mean) == (1.0, 1.0)
    assert figures.per_image == (1.0, 1.0)


def test_samples_that_do_not_fit_are_named():
    labels = halves()
    labels[3, 3] = 2
    with pytest.raises(DatasetError, match=r"image 0: label 2 is out of range, expected 0 to 1"):
        evaluate(Threshold(), Halves(labels))
    with pytest.raises(DatasetError, match=r"image is 16×12 but labels are 16×11"):
        evaluate(Threshold(), Halves(halves()[1:]))


def test_every_sample_is_measured_once():
    guesses = {"image 0": halves(), "image 1": np.zeros_like(halves())}
    iou = measure_iou(Halves(halves()), lambda sample: torch.tensor(guesses.pop(sample.name)))
    assert not guesses
    assert iou.per_class == (pytest.approx(2 / 3), pytest.approx(1 / 2))
    assert iou.pixel_accuracy == pytest.approx(3 / 4)


def test_no_pixel_gives_no_figures():
    iou = IoUMeter(("a", "b")).compute()
    assert iou.pixel_accuracy == 0
    assert iou.present() == {}


def test_the_mean_of_classes_that_never_occur_is_no_number():
    iou = IoU(("a", "b"), (0.5, float("nan")), 0.7)
    assert math.isnan(iou.mean_of(("b",)))
    assert iou.mean == 0.5
    assert iou.present() == {"a": 0.5}
