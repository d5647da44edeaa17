"""Augmentation moves image, labels and soft labels alike."""

import numpy as np
import pytest

from napari_deepcrf.data.samples import VOID, Sample
from napari_deepcrf.data.soft_labels import SoftLabels
from napari_deepcrf.data.transforms import Augmentation, CropGeometry, augment, jitter_colours


@pytest.fixture
def sample():
    labels = np.zeros((45, 71), np.uint8)
    labels[10:30, 20:50] = 1
    labels[25:40, 5:30] = 2
    image = np.repeat((labels * 100)[..., None], 3, axis=2)
    return Sample("one", image, labels)


def test_image_labels_and_soft_labels_stay_together(sample):
    one_hot = np.stack([sample.labels == k for k in range(3)]).astype(np.float16)
    soft = SoftLabels([one_hot])
    rng = np.random.default_rng(0)
    augmentation = Augmentation(crop=37, scale=(0.5, 2.0))
    for _ in range(20):
        image, labels, window = augment(sample, augmentation, rng)
        assert image.shape == (37, 37, 3)
        inside = labels != VOID
        edge = np.abs(image[..., 0] - 100.0 * labels) > 2
        assert (edge & inside).mean() < 0.25  # only interpolated boundaries may differ
        teacher = soft.crop(0, window, sample.labels.shape, 2).numpy()
        coarse = labels[::2, ::2]
        known = coarse != VOID
        assert (teacher.argmax(0) == coarse)[known].mean() > 0.98
        assert ((teacher.sum(0) > 0.5) == known).mean() > 0.94


def test_a_whole_window_is_the_image_itself(sample):
    square = Sample("square", sample.image[:, :45], sample.labels[:, :45])
    window = CropGeometry(top=0, left=0, side=45, size=45, flip=False)
    from PIL import Image

    nearest = Image.Resampling.NEAREST
    assert (window.resample(square.labels, VOID, nearest) == square.labels).all()
    mirrored = CropGeometry(top=0, left=0, side=45, size=45, flip=True)
    assert (mirrored.resample(square.labels, VOID, nearest) == square.labels[:, ::-1]).all()


def test_outside_the_image_is_void(sample):
    augmentation = Augmentation(crop=41, scale=(0.4, 0.4))
    _, labels, window = augment(sample, augmentation, np.random.default_rng(1))
    assert window.side > 71
    share = (labels == VOID).mean()
    assert share == pytest.approx(1 - 45 * 71 / window.side**2, abs=0.03)


@pytest.mark.parametrize("shape", [(1, 306), (306, 1)])
def test_an_image_of_one_row_is_never_rounded_away(shape):
    thin = Sample("thin", np.full((*shape, 3), 90, np.uint8), np.ones(shape, np.uint8))
    rng = np.random.default_rng(0)
    for _ in range(200):
        _, labels, _ = augment(thin, Augmentation(), rng)
        assert (labels == 1).any()


def test_jitter_stays_within_its_limits(sample):
    still = jitter_colours(sample.image, Augmentation(), np.random.default_rng(0))
    np.testing.assert_allclose(still, sample.image, atol=1e-3)
    moved = Augmentation(brightness=0.2)
    bright = jitter_colours(sample.image, moved, np.random.default_rng(0))
    ratio = bright[sample.labels == 1] / 100
    assert 0.8 <= ratio.min() == pytest.approx(ratio.max())
    assert ratio.max() <= 1.2


@pytest.mark.parametrize(
    ("setting", "value"),
    [("crop", 4), ("scale", (0.0, 1.0)), ("scale", (2.0, 1.0)), ("flip", 2), ("contrast", 1.0)],
)
def test_bad_settings_are_named(setting, value):
    with pytest.raises(ValueError, match=f"^{setting}: expected"):
        Augmentation(**{setting: value})


def test_soft_labels_name_what_they_lack(tmp_path):
    path = tmp_path / "soft.npz"
    np.savez(path, a=np.zeros((3, 4, 5), np.float16))
    assert len(SoftLabels.load(path, ("a",)).maps) == 1
    with pytest.raises(ValueError, match="no soft labels for b, c"):
        SoftLabels.load(path, ("a", "b", "c"))
