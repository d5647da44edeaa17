"""IoU per class, void left out, absent classes left out of the mean."""

import math

import pytest
import torch

from napari_deepcrf.training.metrics import IoUMeter, boundary_band


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
