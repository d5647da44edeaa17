"""What counts as an image, and its grey levels."""

import numpy as np
import pytest

from napari_deepcrf.data.images import as_channels, as_rgb


def test_channels():
    grey = np.arange(80, dtype=np.uint8).reshape(8, 10)
    for image in (grey, grey[..., None], np.dstack([grey] * 3), np.dstack([grey] * 3 + [grey * 0])):
        result = as_rgb(image)
        assert result.dtype == np.float32
        np.testing.assert_array_equal(result, np.dstack([grey] * 3))
    assert as_channels(np.zeros((9, 8, 7), np.uint8)).shape == (9, 8, 7)


@pytest.mark.parametrize(
    ("pixels", "highest"),
    [
        (np.eye(9, dtype=bool), 255),
        (np.eye(9, dtype=np.uint8) * 40, 40),
        (np.eye(9, dtype=np.float64) * 0.5, 127.5),
        (np.eye(9, dtype=np.float32) * 200, 200),
        (np.eye(9, dtype=np.uint16) * 4095, 255),
        (np.eye(9) * 3000 - 1000, 255),
    ],
)
def test_grey_levels(pixels, highest):
    result = as_rgb(pixels)
    assert result.min() == 0
    assert result.max() == pytest.approx(highest)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((7, 20)), r"expected at least 8×8 pixels, got 7×20"),
        (np.zeros((9, 9, 2)), "expected 1, 3 or 4 channels, got 2"),
        (np.zeros((3, 9, 9, 3)), r"got shape \(3, 9, 9, 3\)"),
        (np.full((9, 9), np.nan), "expected finite values, got NaN"),
        (np.full((9, 9, 3), np.inf), "expected finite values"),
    ],
)
def test_bad_images_are_refused(image, message):
    with pytest.raises(ValueError, match=message):
        as_rgb(image)


def test_no_numbers_are_refused():
    with pytest.raises(TypeError, match="image: expected numbers, got <U"):
        as_rgb(np.array([["a"] * 9] * 9))
