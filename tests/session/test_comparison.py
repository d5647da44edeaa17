import numpy as np
import pytest
import torch

from napari_deepcrf.inference import Predictor
from napari_deepcrf.models import DeepCRF
from napari_deepcrf.session.comparison import Comparison, compare


def test_both_models_label_the_image(session, model, image):
    torch.manual_seed(7)
    other = DeepCRF(model.network, model.crf, model.class_names[::-1]).eval()
    settings = session.settings
    *_, found = compare(image, (model, settings), (other, settings), "cpu")
    expected = Predictor(model, device="cpu").segment(image.read()).labels
    np.testing.assert_array_equal(found.before, expected)
    np.testing.assert_array_equal(found.after, expected)
    assert found.image_key == image.key
    middle = expected == 1  # the only name that stands for the same output
    np.testing.assert_array_equal(found.changed, ~middle)


@pytest.mark.parametrize("extra", [(), ("lizard",)])
def test_classes_are_compared_by_name(extra):
    names = ("background", "cat")
    labels = np.array([[0, 1], [1, 0]])
    other = np.array([[0, 1], [0, 0]])
    changed = Comparison("a", labels, names, other, (*names, *extra)).changed
    np.testing.assert_array_equal(changed, [[False, False], [True, False]])
