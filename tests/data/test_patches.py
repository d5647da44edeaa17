"""Patches at native scale: every labelled pixel once, nothing resized."""

import numpy as np
import pytest

from napari_deepcrf.data.patches import Patches
from napari_deepcrf.data.samples import VOID, DatasetError, Sample


class Large:
    """Two images of different size, as a dataset."""

    class_names = ("background", "thing")

    def __init__(self, *samples):
        self.samples, self.reads = samples, 0

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        self.reads += 1
        return self.samples[index]


def sample(name, height, width):
    image = np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)
    labels = np.random.default_rng(1).integers(0, 2, (height, width), dtype=np.uint8)
    return Sample(name, image, labels)


def test_every_pixel_lies_in_exactly_one_patch():
    one, other = sample("one", 101, 64), sample("other", 30, 40)
    patches = Patches(Large(one, other), 32)
    assert [patch.labels.shape for patch in patches] == [
        (25, 32), (25, 32), (25, 32), (25, 32), (25, 32), (25, 32), (26, 32), (26, 32),
        (30, 20), (30, 20),
    ]  # fmt: skip
    rows = [
        np.concatenate([patches[n].image, patches[n + 1].image], axis=1) for n in range(0, 8, 2)
    ]
    assert (np.concatenate(rows) == one.image).all()
    assert patches[9].name == "other (rows 0-30, columns 20-40)"


def test_patches_without_a_label_are_left_out_and_images_read_once_in_a_row():
    one = sample("one", 64, 64)
    one.labels[:32] = VOID
    one.labels[:, 32:] = VOID
    large = Large(one)
    patches = Patches(large, 32)
    assert len(patches) == 1
    assert patches[0].name == "one (rows 32-64, columns 0-32)"
    assert large.reads == 1
    one.labels[:] = VOID
    with pytest.raises(DatasetError, match="no labelled pixel"):
        Patches(Large(one), 32)


def test_tiny_patches_are_refused():
    with pytest.raises(ValueError, match="size: expected at least 8 pixels, got 7"):
        Patches(Large(sample("one", 30, 40)), 7)
