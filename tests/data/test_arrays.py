"""Annotations: 0 unlabelled, class + 1."""

import numpy as np
import pytest

from napari_deepcrf.data.arrays import ArrayDataset, from_annotation
from napari_deepcrf.data.samples import VOID, DatasetError


def test_annotations_count_from_one_and_zero_is_void():
    labels = from_annotation(np.array([[0, 1], [2, 254]]))
    assert labels.tolist() == [[VOID, 0], [1, 253]]


def test_names_default_to_numbers():
    image = np.zeros((9, 12, 3), np.uint8)
    labels = np.tile(np.arange(4), (9, 3))
    dataset = ArrayDataset([(image, labels)])
    assert dataset.class_names == ("class 1", "class 2", "class 3")
    assert len(dataset) == 1
    assert dataset[0].name == "image 1"
    named = ArrayDataset([(image, labels)], ["a", "b", "c"], names=["nuclei.tif"])
    assert named[0].name == "nuclei.tif"


def test_planes_of_a_stack_that_are_annotated_become_samples():
    stack = np.arange(4 * 9 * 12, dtype=np.uint16).reshape(4, 9, 12)
    labels = np.zeros((4, 9, 12), int)
    labels[1, 2:4] = 1
    labels[3, 5:] = 2
    dataset = ArrayDataset([(stack, labels)], names=["nuclei"])
    assert [sample.name for sample in dataset] == ["nuclei, plane 1", "nuclei, plane 3"]
    assert dataset[1].image.shape == (9, 12, 3)
    assert (dataset[1].labels[5:] == 1).all()


@pytest.mark.parametrize("labels", [np.ones(12, int), np.ones((9, 12, 1), int)])
def test_annotations_must_fit_their_image(labels):
    with pytest.raises(DatasetError, match=r"image 1: labels must be \(H, W\).*, got shape"):
        ArrayDataset([(np.zeros((9, 12, 3), np.uint8), labels)])


def test_numbers_with_gaps_need_names():
    image, labels = np.zeros((9, 12, 3), np.uint8), np.ones((9, 12), int)
    labels[:4] = 5
    with pytest.raises(DatasetError, match=r"no pixel is labelled 2, 3, 4: .* by class_names"):
        ArrayDataset([(image, labels)])
    names = tuple("abcde")
    assert ArrayDataset([(image, labels)], names, known=names).class_names == names
    with pytest.raises(DatasetError, match=r"labelled 'b' \(label 2\); .* 'd' \(label 4\)"):
        ArrayDataset([(image, labels)], names, known=("c",))


def test_more_classes_than_labels_can_tell_apart_are_refused():
    image, labels = np.zeros((9, 12, 3), np.uint8), np.full((9, 12), 256)
    names = [f"class {n}" for n in range(300)]
    with pytest.raises(DatasetError, match=r"class_names: .* expected at most 254 names, got 300"):
        ArrayDataset([(image, labels)], names, known=names)


def test_all_that_is_wrong_is_listed_at_once():
    image, labels = np.zeros((9, 12, 3), np.uint8), np.ones((9, 12), int)
    pairs = [(image[:5], labels[:5]), (image.astype(str), labels), (image, labels[1:])]
    with pytest.raises(DatasetError) as caught:
        ArrayDataset(pairs, ("sky", "sea"))
    first, second, third, fourth = caught.value.problems
    assert first == "image 1: expected at least 8×8 pixels, got 5×12"
    assert second.startswith("image 2: expected numbers, got")
    assert third == "image 3: image is 12×9 but labels are 12×8"
    assert fourth == "no pixel is labelled 'sea' (label 2)"
