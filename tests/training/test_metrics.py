"""IoU per class, void left out, absent classes left out of the mean."""

import math

import pytest
import torch

from napari_deepcrf.training.metrics import IoUMeter


def test_iou_by_hand():
    meter = IoUMeter(("a", "b", "c"))
    meter.update(torch.tensor([[0, 0, 1, 1]]), torch.tensor([[0, 1, 1, 255]]))
    iou = meter.compute()
    assert iou.as_dict()["a"] == pytest.approx(1 / 2)
    assert iou.as_dict()["b"] == pytest.approx(1 / 2)
    assert math.isnan(iou.as_dict()["c"])
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
