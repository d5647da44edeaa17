"""The packaged model: whole, small, and of use on photographs it never saw."""

import numpy as np
import pytest

from napari_deepcrf.data.voc import VOC_CLASSES
from napari_deepcrf.inference import Predictor
from napari_deepcrf.models.zoo import available_models, model_path


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor("voc-compact", device="cpu")


def test_it_is_small_and_has_a_card():
    path = model_path("voc-compact")
    assert path.stat().st_size < 6e6
    entry = next(entry for entry in available_models() if entry.name == "voc-compact")
    card = entry.card.read_text(encoding="utf-8")
    for heading in ("## Data", "## Protocol", "## Figures", "## Known failures"):
        assert heading in card


def test_it_knows_vocs_classes(predictor):
    assert predictor.class_names == VOC_CLASSES
    assert not predictor.model.network.backbone.batch_norm


def test_it_finds_the_cat(predictor):
    from skimage import data

    labels = predictor.segment(data.chelsea()).labels
    share = np.bincount(labels.ravel(), minlength=21) / labels.size
    assert share[VOC_CLASSES.index("cat")] > 0.7
    assert share[1:].sum() - share[VOC_CLASSES.index("cat")] < 0.01


def test_it_finds_the_person(predictor):
    from skimage import data

    labels = predictor.segment(data.astronaut()).labels
    share = np.bincount(labels.ravel(), minlength=21) / labels.size
    person = VOC_CLASSES.index("person")
    assert share[person] > 0.3
    assert share[1:].argmax() + 1 == person
