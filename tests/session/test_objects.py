from dataclasses import replace

import numpy as np
import pytest

from napari_deepcrf.crf import CRFParameters
from napari_deepcrf.session import CRFSettings, Identity, Result
from napari_deepcrf.session.objects import find_objects


@pytest.fixture
def result():
    labels = np.zeros((20, 30), np.uint8)
    labels[2:6, 3:9] = 1
    labels[10:13, 10:20] = 1
    labels[13, 20] = 1  # touches the region before by a corner
    labels[17, 2] = 1
    labels[15:18, 24:27] = 2
    marginals = np.where(np.arange(3)[:, None, None] == labels, 0.8, 0.1).astype(np.float16)
    identity = Identity("a", "m", CRFSettings(parameters=CRFParameters()))
    return Result(
        identity=identity,
        class_names=("background", "cat", "dog"),
        classes=(0, 1, 2),
        unary=np.log(marginals).astype(np.float32),
        marginals=marginals[:, None],
        history=labels[None],
        uncertainty=np.zeros((1, 20, 30), np.float16),
        changed=(),
        largest_class=1,
        score_range=(-2.3, -0.2),
    )


def test_regions_of_a_class_are_numbered_and_measured(result):
    objects = find_objects(result, 1, minimum=2)
    np.testing.assert_array_equal(objects.table["index"], [1, 2])
    np.testing.assert_array_equal(objects.table["area"], [24, 31])
    assert set(np.unique(objects.labels)) == {0, 1, 2}
    means = [np.argwhere(objects.labels == number).mean(axis=0) for number in (1, 2)]
    np.testing.assert_allclose(objects.centres, means)
    np.testing.assert_allclose(objects.table["mean_probability"], 0.8, atol=1e-3)
    expected = -0.8 * np.log(0.8) - 2 * 0.1 * np.log(0.1)
    np.testing.assert_allclose(objects.table["boundary_entropy"], expected, rtol=1e-3)


def test_small_regions_are_left_out(result):
    assert len(find_objects(result, 1, minimum=1).table["index"]) == 3
    assert len(find_objects(result, 1, minimum=30).table["index"]) == 1
    none = find_objects(result, 1, minimum=1000)
    assert none.labels.max() == 0
    assert len(none.table["area"]) == 0
    assert none.centres.shape == (0, 2)


def test_a_class_whose_marginals_were_not_kept_is_nowhere(result):
    kept = replace(result, classes=(0, 1), marginals=result.marginals[:2])
    expected, found = (find_objects(r, 1, minimum=2).table for r in (result, kept))
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=2e-3)
    empty = replace(kept, history=np.zeros_like(result.history))
    assert len(find_objects(empty, 2, minimum=1).table["index"]) == 0


def test_bad_arguments_are_named(result):
    with pytest.raises(ValueError, match=r"^class: expected"):
        find_objects(result, 3, minimum=1)
    with pytest.raises(ValueError, match=r"^minimum size: expected"):
        find_objects(result, 1, minimum=0)
