"""Models by name."""

import pytest

from napari_deepcrf.models.zoo import available_models, is_known, model_path


def test_every_packaged_model_has_a_file_or_an_address():
    for entry in available_models():
        assert (entry.file is None) == (entry.url is not None)
        assert entry.url is None or len(entry.sha256) == 64
        assert is_known(entry.name)


def test_unknown_names_are_refused():
    assert not is_known("voc-huge")
    with pytest.raises(KeyError, match="voc-huge: no such model, known are voc-compact"):
        model_path("voc-huge")
