"""The finer top layer: its maps, its calibration, and checkpoints that carry it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from napari_deepcrf.crf import DenseCRF
from napari_deepcrf.models import VGG16, DeepCRF, UnaryNetwork
from napari_deepcrf.models.backbone import Backbone
from napari_deepcrf.models.fine_head import (
    COMPONENTS,
    FineHead,
    FineUnaryNetwork,
    MapScores,
    responses,
)
from napari_deepcrf.models.mobilenet import MobileNetV2
from napari_deepcrf.models.texture import CHANNELS, SCALES, texture_maps


def photo(height: int, width: int, seed: int = 0) -> torch.Tensor:
    """(1, 3, H, W) smooth colours with some noise."""
    generator = torch.Generator().manual_seed(seed)
    small = torch.rand(1, 3, 5, 7, generator=generator) * 255
    noise = torch.randn(1, 3, height, width, generator=generator)
    smooth = torch.nn.functional.interpolate(small, (height, width), mode="bicubic")
    return (smooth + 4 * noise).clamp(0, 255)


@pytest.mark.parametrize("kind", [VGG16, MobileNetV2])
def test_feature_maps_come_from_fine_to_coarse_and_end_below_the_top_layer(
    kind: type[Backbone],
) -> None:
    torch.manual_seed(0)
    backbone = (VGG16(3, width=0.05, head="smallfov") if kind is VGG16 else MobileNetV2(3)).eval()
    x = torch.randn(1, 3, 65, 49)
    with torch.inference_mode():
        maps = backbone.feature_maps(x)
        assert torch.equal(backbone.score(maps[-1]), backbone(x))
    heights = [one.shape[2] for one in maps]
    assert len(maps) == len(backbone.taps)
    assert heights == sorted(heights, reverse=True)
    assert heights[-1] < 65 / 6


def test_texture_of_a_ramp_is_its_slope_at_every_scale() -> None:
    ramp = torch.arange(96.0).expand(1, 3, 80, 96)
    for scale, one in zip(SCALES, texture_maps(ramp), strict=True):
        assert one.shape[1] == CHANNELS
        inner = one[0, :, one.shape[2] // 2, one.shape[3] // 2]
        factor = 80 / one.shape[2]
        gradient = float(inner[3])
        assert gradient == pytest.approx(3**0.5 * scale / 255, rel=0.02), factor
        assert inner[4:6].abs().max() < 1e-4  # a ramp has no curvature


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (37, 53)])
def test_texture_of_any_size_is_finite(size: tuple[int, int]) -> None:
    for one in texture_maps(photo(*size)):
        assert one.isfinite().all()


def test_calibrated_features_are_uncorrelated_with_unit_variance() -> None:
    generator = torch.Generator().manual_seed(1)
    mixing = torch.randn(24, 30, generator=generator)
    maps = [
        torch.einsum("ij,jhw->ihw", mixing, torch.randn(30, 19, width, generator=generator))[None]
        for width in (23, 31)
    ]
    share = MapScores(24, 2)
    share.calibrate(maps)
    features = torch.cat([share.features(one)[0].flatten(1) for one in maps], 1)
    assert features.shape[0] == COMPONENTS
    torch.testing.assert_close(torch.cov(features), torch.eye(COMPONENTS), atol=5e-3, rtol=0)
    assert features.mean(1).abs().max() < 1e-4


def test_a_constant_channel_is_calibrated_to_finite_features() -> None:
    share = MapScores(2, 2)
    one = torch.stack([torch.full((9, 11), 7.0), torch.randn(9, 11)])[None]
    share.calibrate([one])
    assert share.features(one).isfinite().all()


def test_the_smallest_image_is_calibrated_to_finite_features() -> None:
    maps = texture_maps(photo(8, 8))
    assert maps[-1].shape[2:] == (1, 1)
    for one in maps:
        share = MapScores(CHANNELS, 2)
        share.calibrate([one])
        assert share.features(one).isfinite().all()


@pytest.mark.parametrize("size", [(8, 20_000), (20_000, 8)])
def test_a_thin_image_is_not_reduced_to_nothing(size: tuple[int, int]) -> None:
    network = FineUnaryNetwork(VGG16(2, width=0.05, head="smallfov"), input_size=40).eval()
    with torch.inference_mode():
        assert network(torch.zeros(1, 3, *size)).shape == (1, 2, *size)


def test_responses_are_bounded_far_from_anything_seen() -> None:
    far = responses(torch.full((1, 2, 1), 1e6))
    assert far.abs().max() <= 2.5


def test_the_head_adds_its_maps_scores_at_the_images_size() -> None:
    torch.manual_seed(0)
    head = FineHead([3, 5], 2)
    for share in head.shares:
        assert isinstance(share, MapScores)
        torch.nn.init.normal_(share.weight)
    maps = [torch.randn(1, 3, 20, 30), torch.randn(1, 5, 5, 8)]
    scores = head(maps, (20, 30))
    alone = [
        head([maps[0], torch.zeros(1, 5, 5, 8)], (20, 30)),
        head([torch.zeros(1, 3, 20, 30), maps[1]], (20, 30)),
        head([torch.zeros(1, 3, 20, 30), torch.zeros(1, 5, 5, 8)], (20, 30)),
    ]
    torch.testing.assert_close(scores, alone[0] + alone[1] - alone[2])


@pytest.mark.parametrize("size", [(37, 53), (70, 41)])
def test_a_model_with_a_fine_head_survives_its_checkpoint(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    torch.manual_seed(0)
    network = FineUnaryNetwork(VGG16(2, width=0.05, head="smallfov"), input_size=64).eval()
    image = photo(*size)
    network.fine.calibrate([network.maps(image)])
    for weight in network.fine.parameters():
        torch.nn.init.normal_(weight)
    model = DeepCRF(network, DenseCRF(iterations=1), ("background", "nucleus")).eval()
    model.save(tmp_path / "model.safetensors")
    loaded = DeepCRF.load(tmp_path / "model.safetensors")
    with torch.inference_mode():
        expected = model.unary(image)
        assert expected.shape == (1, 2, *size)
        assert torch.equal(loaded.unary(image), expected)
        assert loaded.network.coarse(image).shape[2:] == tuple(-(-n // 8) for n in size)


def test_a_plain_models_checkpoint_does_not_change() -> None:
    network = UnaryNetwork(VGG16(2, width=0.05, head="smallfov"), input_size=64)
    model = DeepCRF(network, DenseCRF(), ("background", "nucleus"))
    assert "fine" not in model.configuration()["network"]
