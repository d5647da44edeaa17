"""Annotations: 0 unlabelled, class + 1."""

import numpy as np
import pytest

from napari_deepcrf.data.arrays import ArrayDataset, from_annotation, to_annotation
from napari_deepcrf.data.samples import VOID, DatasetError


def test_annotations_there_and_back():
    annotation = np.array([[0, 1], [2, 254]])
    labels = from_annotation(annotation)
    assert labels.tolist() == [[VOID, 0], [1, 253]]
    assert (to_annotation(labels) == annotation).all()


def test_names_default_to_numbers():
    image = np.zeros((9, 12, 3), np.uint8)
    labels = np.tile(np.arange(4), (9, 3))
    dataset = ArrayDataset([(image, labels)])
    assert dataset.class_names == ("class 1", "class 2", "class 3")
    assert len(dataset) == 1
    assert dataset[0].name == "image 1"
    named = ArrayDataset([(image, labels)], ["a", "b", "c"], names=["nuclei.tif"])
    assert named[0].name == "nuclei.tif"


@pytest.mark.parametrize("labels", [np.ones(12, int), np.ones((9, 12, 1), int)])
def test_annotations_must_be_planes(labels):
    with pytest.raises(DatasetError, match=r"image 1: labels must be \(H, W\), got shape"):
        ArrayDataset([(np.zeros((9, 12, 3), np.uint8), labels)])
