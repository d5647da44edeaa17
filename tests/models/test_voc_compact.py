"""The packaged model: whole, small, and of use on photographs it never saw."""

import numpy as np
import pytest

from napari_deepcrf.data.voc import VOC_CLASSES
from napari_deepcrf.inference import Predictor
from napari_deepcrf.models import VGG16
from napari_deepcrf.models.zoo import ModelEntry, available_models, model_path


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor("voc-compact", device="cpu")


@pytest.mark.parametrize("entry", available_models(), ids=lambda entry: entry.name)
def test_packaged_models_have_cards(entry: ModelEntry):
    card = model_path(entry.name).with_suffix(".md").read_text(encoding="utf-8")
    assert card.startswith(f"# {entry.name}\n")
    for heading in ("## Data", "## Protocol", "## Figures", "## Known failures"):
        assert heading in card


def test_licences_lie_beside_the_models():
    text = model_path("voc-compact").with_name("LICENSE").read_text(encoding="utf-8")
    for title in ("MobileNetV2", "BSD 3-Clause License", "Apache License", "END OF TERMS"):
        assert title in text


def test_packaged_models_are_small_together():
    assert sum(model_path(entry.name).stat().st_size for entry in available_models()) < 8e6


def test_it_knows_vocs_classes(predictor):
    assert predictor.class_names == VOC_CLASSES
    assert not predictor.model.network.backbone.batch_norm


def test_the_thin_vgg16_loads():
    network = Predictor("voc-vgg16-thin", device="cpu").model.network
    assert isinstance(network.backbone, VGG16)


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
