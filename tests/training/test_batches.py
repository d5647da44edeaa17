"""Batches: the same whoever prepares them, pinned for a GPU."""

from dataclasses import replace

import pytest
import torch

from napari_deepcrf.data.copies import ReducedCopies
from napari_deepcrf.data.voc import VOCDataset
from napari_deepcrf.training import batches
from napari_deepcrf.training.batches import crop_batches, image_batches, worker_count

CPU, CUDA = torch.device("cpu"), torch.device("cuda:0")


@pytest.fixture
def train(voc_root):
    return ReducedCopies(VOCDataset(voc_root, "train"), 48)


@pytest.mark.parametrize("kind", ["crops", "images"])
def test_worker_processes_prepare_the_same_batches(kind, train, tiny_unary, tiny_joint):
    make, stage = (crop_batches, tiny_unary) if kind == "crops" else (image_batches, tiny_joint)
    stage = replace(stage, iterations=4)
    alone = list(make(train, stage, seed=3, start=1, device=CPU))
    helped = list(make(train, replace(stage, workers=2), seed=3, start=1, device=CPU))
    assert len(alone) == len(helped) == 3
    for one, other in zip(alone, helped, strict=True):
        assert one.names == other.names
        for mine, theirs in zip(one.images, other.images, strict=True):
            assert torch.equal(mine, theirs)
        for mine, theirs in zip(one.labels, other.labels, strict=True):
            assert torch.equal(mine, theirs)


def test_a_gpu_gets_workers_and_pinned_memory(train, tiny_unary, monkeypatch):
    seen = {}

    def loader(dataset, **settings):
        seen.update(settings)
        return iter(())

    monkeypatch.setattr(batches, "DataLoader", loader)
    monkeypatch.setattr(batches.os, "cpu_count", lambda: 16)
    list(crop_batches(train, tiny_unary, seed=0, start=0, device=CUDA))
    assert (seen["pin_memory"], seen["num_workers"], seen["prefetch_factor"]) == (True, 4, 4)
    list(crop_batches(train, tiny_unary, seed=0, start=0, device=CPU))
    assert (seen["pin_memory"], seen["num_workers"], seen["prefetch_factor"]) == (False, 0, None)
    assert worker_count(replace(tiny_unary, workers=7), CPU) == 7


@pytest.mark.parametrize("kind", ["crops", "images"])
def test_every_tensor_of_a_batch_is_pinned(kind, train, tiny_unary, tiny_joint, monkeypatch):
    pinned = []

    def pin(tensor):
        pinned.append(tensor)
        return tensor.clone()

    monkeypatch.setattr(torch.Tensor, "pin_memory", pin)
    make, stage = (crop_batches, tiny_unary) if kind == "crops" else (image_batches, tiny_joint)
    batch = next(iter(make(train, stage, seed=0, start=0, device=CPU)))
    copy = batch.pin_memory()
    assert copy.names == batch.names
    assert len(pinned) == (2 if kind == "crops" else 2 * stage.batch_size)
    assert torch.equal(copy.images[0], batch.images[0])
