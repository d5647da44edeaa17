"""Stacks plane by plane, and one CRF over all planes."""

import threading

import dask.array as da
import numpy as np
import pytest
import torch
from dask.delayed import delayed

import napari_deepcrf as ndc
from napari_deepcrf.inference import memory, volume
from napari_deepcrf.inference.stack import StackLabels
from napari_deepcrf.inference.volume import crf_over_planes, segment_volume


@pytest.fixture
def seen() -> list[int]:
    return []


@pytest.fixture
def label_plane(seen):
    """Labels a plane by its grey level and remembers which it saw."""
    lock = threading.Lock()

    def label(pixels: np.ndarray) -> np.ndarray:
        with lock:
            seen.append(int(pixels[0, 0, 0]))
        return pixels[..., 0].astype(np.uint8)

    return label


def _numbered(*shape: int) -> np.ndarray:
    """A stack whose planes hold their own number."""
    planes = np.arange(np.prod(shape), dtype=np.uint8).reshape(*shape, 1, 1)
    return np.broadcast_to(planes, (*shape, 9, 11))


def test_the_plane_in_view_is_computed_first(label_plane, seen):
    stack = StackLabels(_numbered(2, 5), label_plane, workers=2)
    assert stack.labels.shape == (2, 5, 9, 11)
    assert seen == []
    stack.focus((1, 3, 400, 400))
    steps = stack.fill()
    assert next(steps) == (1, 3)
    assert seen == [8]
    assert stack.is_done((1, 3))
    assert not stack.is_done((0, 0))
    stack.focus((0, 0))
    assert next(steps) in {(1, 2), (1, 4), (0, 0)}
    order = [*steps]
    assert order[-1] != (0, 0)
    assert sorted(seen) == list(range(10))
    assert stack.num_done == stack.num_planes == 10
    np.testing.assert_array_equal(stack.labels, _numbered(2, 5))


def test_a_plane_is_computed_once_when_it_is_asked_for(label_plane, seen):
    stack = StackLabels(_numbered(4), label_plane)
    assert seen == []
    np.testing.assert_array_equal(stack.plane((2,)), 2)
    np.testing.assert_array_equal(stack.plane((2,)), 2)
    assert seen == [2]
    assert (stack.num_done, stack.labels[2].min(), stack.labels[3].max()) == (1, 2, 0)
    assert (2,) not in list(stack.fill())
    assert sorted(seen) == [0, 1, 2, 3]


def test_channels_may_come_first(label_plane):
    stack = StackLabels(np.zeros((3, 6, 9, 11), np.uint8), label_plane, channel_axis=0)
    assert stack.labels.shape == (6, 9, 11)


def test_a_broken_plane_reaches_the_caller_and_leaves_the_others(seen):
    def label(pixels: np.ndarray) -> np.ndarray:
        if pixels[0, 0, 0] == 1:
            raise ValueError("image: broken")
        return pixels[..., 0]

    stack = StackLabels(_numbered(3), label, workers=1)
    with pytest.raises(ValueError, match="image: broken"):
        list(stack.fill())
    assert stack.is_done((0,))
    assert not stack.is_done((1,))
    np.testing.assert_array_equal(stack.plane((2,)), 2)


def test_a_plane_that_cannot_be_read_is_named(label_plane):
    def lost() -> None:
        raise OSError("chunk lost\nfor good")

    planes = [da.zeros((9, 11), np.uint8), da.from_delayed(delayed(lost)(), (9, 11), np.uint8)]
    with pytest.raises(ValueError, match=r"^image: reading plane 1 failed: chunk lost$"):
        list(StackLabels(da.stack(planes), label_plane).fill())


def test_planes_of_an_earlier_run_are_copied(label_plane, seen):
    earlier = StackLabels(_numbered(4), label_plane, workers=1)
    earlier.plane((2,))
    stack = StackLabels(_numbered(4), label_plane, workers=1, earlier=earlier)
    assert (stack.num_done, stack.is_done((2,))) == (1, True)
    assert sorted(stack.fill()) == [(0,), (1,), (3,)]
    np.testing.assert_array_equal(stack.labels, _numbered(4))
    assert sorted(seen) == [0, 1, 2, 3]
    assert earlier.num_done == 1
    with pytest.raises(ValueError, match=r"earlier: expected labels of \(5, 9, 11\), got \(4, 9"):
        StackLabels(_numbered(5), label_plane, earlier=earlier)


def test_a_predictor_labels_planes_as_it_does_images(predictor, photo):
    planes = np.stack([photo[:60, :80], photo[60:120, :80]])
    stack = StackLabels(planes, predictor, workers=2)
    list(stack.fill())
    for plane, labels in zip(planes, stack.labels, strict=True):
        np.testing.assert_array_equal(labels, predictor.segment(plane).labels)


def test_one_crf_over_planes_connects_them(predictor, photo):
    planes = np.stack([photo[:40, :50]] * 3)
    planes[1] = np.random.default_rng(0).integers(0, 256, planes[1].shape)
    told = []
    narrow = segment_volume(planes, predictor, planes_width=1e-3)
    alone = np.stack([predictor.segment(plane).labels for plane in planes])
    assert (narrow != alone).mean() < 0.02
    crf = ndc.DenseCRF(ndc.CRFParameters(w_spatial=30, theta_gamma=2, theta_alpha=12), iterations=3)
    report = lambda *progress: told.append(progress)  # noqa: E731
    wide = segment_volume(planes, predictor, planes_width=3, crf=crf, on_progress=report)
    assert told == [(0, 4), (1, 4), (2, 4), (3, 4), (4, 4)]
    between = (np.diff(wide.astype(int), axis=0) != 0).mean()
    assert between < 0.5 * (np.diff(narrow.astype(int), axis=0) != 0).mean()


def test_planes_of_a_volume_share_their_grey_levels(predictor, monkeypatch):
    planes = np.zeros((3, 12, 16), np.uint16)
    planes[:, :, 8:] = np.array([1, 500, 1000])[:, None, None]
    seen = []

    class Recording(torch.nn.Module):
        def forward(self, scores: torch.Tensor, colours: torch.Tensor) -> torch.Tensor:
            seen.append((scores, colours))
            return scores

    monkeypatch.setattr(volume, "crf_over_planes", lambda *_: Recording())
    segment_volume(planes, predictor, planes_width=2)
    ((scores, colours),) = seen
    assert colours.shape == (1, 3, 3, 12, 16)
    np.testing.assert_allclose(colours[0, 0, :, 0, 12], [0.255, 127.5, 255], rtol=1e-5)
    for z, plane in enumerate(planes):  # the network's is stretched by itself, and once
        np.testing.assert_array_equal(scores[0, :, z], predictor.unary(plane))


def test_a_dark_plane_is_no_bright_one(predictor):
    dark = np.random.default_rng(0).integers(0, 2, (2, 12, 16, 3), dtype=np.uint8)
    labels = segment_volume(dark, predictor, planes_width=1e-3)
    for plane, found in zip(dark, labels, strict=True):
        np.testing.assert_array_equal(found, predictor.segment(plane).labels)


def test_a_volume_that_takes_too_much_is_refused_before_any_work(predictor, monkeypatch):
    monkeypatch.setattr(predictor, "unary", None)
    limit = memory.resident() + 10_000_000
    with pytest.raises(ValueError, match=r"memory: a 3-D CRF over 50×400×500 pixels takes about"):
        segment_volume(np.zeros((50, 400, 500), np.uint8), predictor, planes_width=2, memory=limit)


def test_widths_over_planes_stand_beside_those_within():
    crf = ndc.DenseCRF(ndc.CRFParameters(theta_gamma=(2, 3), theta_alpha=40))
    deep = crf_over_planes(crf, 1.5).crf_parameters()
    np.testing.assert_allclose(deep.theta_gamma, (1.5, 2, 3), rtol=1e-6)
    np.testing.assert_allclose(deep.theta_alpha, (1.5, 40, 40), rtol=1e-6)
    for width in (0, -1, float("nan")):
        with pytest.raises(ValueError, match="planes_width: expected a positive, finite number"):
            crf_over_planes(crf, width)


@pytest.mark.parametrize("shape", [(9, 11), (2, 2, 9, 11)])
def test_a_volume_has_three_axes(predictor, shape):
    with pytest.raises(ValueError, match=r"image: expected one stack \(D, H, W\), got shape"):
        segment_volume(np.zeros(shape, np.uint8), predictor, planes_width=2)
