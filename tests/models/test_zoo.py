"""Models by name."""

import pytest

from napari_deepcrf.models.zoo import available_models, is_known, model_path


def test_every_model_is_known_and_has_its_file():
    for entry in available_models():
        assert is_known(entry.name)
        assert model_path(entry.name).is_file()


def test_unknown_names_are_refused():
    assert not is_known("voc-huge")
    with pytest.raises(KeyError, match="voc-huge: no such model, known are voc-compact"):
        model_path("voc-huge")
