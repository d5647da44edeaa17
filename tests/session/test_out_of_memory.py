"""Mean field on a GPU that has no room left, played by a fake."""

from __future__ import annotations

import logging

import numpy as np
import torch

from napari_deepcrf.crf import CRFParameters
from napari_deepcrf.session.settings import CRFSettings
from napari_deepcrf.session.unary_cache import UnaryCache


def test_the_sliders_go_on_on_the_cpu(monkeypatch, caplog):
    random = np.random.default_rng(0)
    image = random.uniform(0, 255, (9, 11, 3)).astype(np.float32)
    scores = random.normal(size=(3, 9, 11)).astype(np.float32)
    ready = UnaryCache._ready
    tried = []

    def without_room(cache, settings):
        tried.append(cache.device)
        if cache.device != "cpu":
            raise torch.OutOfMemoryError("CUDA out of memory")
        return ready(cache, settings)

    monkeypatch.setattr(UnaryCache, "_ready", without_room)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    settings = CRFSettings(parameters=CRFParameters())
    names = ("a", "b", "c")
    caches = [UnaryCache("key", "model", image, scores, names, d) for d in ("cuda:0", "cpu")]
    with caplog.at_level(logging.WARNING):
        first, expected = (torch.stack(list(cache.trace(settings))) for cache in caches)
    assert torch.equal(first, expected)
    assert tried == ["cuda:0", "cpu", "cpu"]
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    list(caches[0].trace(settings))
    assert tried[3:] == ["cpu"]
    visible = UnaryCache("key", "model", image, scores, names, "cuda:0")
    assert np.array_equal(visible.labels(settings), expected[-1].argmax(0).numpy())
    assert visible.device == "cpu"
