"""What holds for every backbone."""

import pytest
import torch

from napari_deepcrf.crf import DenseCRF
from napari_deepcrf.models import VGG16, DeepCRF, MobileNetV2, UnaryNetwork
from napari_deepcrf.models.backbone import Backbone, fold_batch_norm


@pytest.mark.parametrize(
    "backbone",
    [
        VGG16(4, width=0.06, head="smallfov", batch_norm=True),
        MobileNetV2(4, batch_norm=True),
    ],
    ids=["VGG16", "MobileNetV2"],
)
def test_folding_changes_nothing_but_the_layers(backbone: Backbone):
    torch.manual_seed(0)
    backbone.train()
    for _ in range(3):  # statistics that are neither zero nor one
        backbone(torch.randn(4, 3, 48, 48))
    backbone.eval()
    plain = fold_batch_norm(backbone)
    image = torch.randn(1, 3, 37, 51)
    with torch.inference_mode():
        torch.testing.assert_close(plain(image), backbone(image), atol=1e-4, rtol=1e-4)
    assert not any("norm" in name for name in plain.state_dict())
    assert any("norm" in name for name in backbone.state_dict())
    with pytest.raises(ValueError, match="expected one with batch norm"):
        fold_batch_norm(plain)


@pytest.mark.parametrize("output_stride", [8, 16])
@pytest.mark.parametrize(("height", "width"), [(64, 64), (63, 100), (8, 9)])
def test_mobilenet_reduces_by_its_output_stride(height: int, width: int, output_stride: int):
    network = MobileNetV2(3, output_stride=output_stride).eval()
    scores = network(torch.zeros(2, 3, height, width))
    assert scores.shape == (2, 3, -(-height // output_stride), -(-width // output_stride))


def test_mobilenet_takes_the_same_weights_at_both_strides():
    torch.manual_seed(2)
    coarse = MobileNetV2(3, output_stride=16).eval()
    fine = coarse.with_changes(output_stride=8).eval()
    fine.load_state_dict(coarse.state_dict())
    image = torch.randn(1, 3, 128, 128)
    with torch.inference_mode():
        # The finer map's every second cell sees just what the coarse map's cells see.
        torch.testing.assert_close(fine(image)[..., ::2, ::2], coarse(image))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_classes": 1}, "num_classes: expected at least 2, got 1"),
        ({"num_classes": 2, "output_stride": 4}, "output_stride: expected 8 or 16, got 4"),
    ],
)
def test_mobilenet_refuses_wrong_arguments(settings: dict[str, int], message: str):
    with pytest.raises(ValueError, match=message):
        MobileNetV2(**settings)


def test_frozen_layers_keep_weights_and_statistics():
    torch.manual_seed(3)
    backbone = MobileNetV2(3, output_stride=16, batch_norm=True)
    backbone.freeze(3)
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    optimizer = torch.optim.SGD(backbone.body_parameters() + backbone.top_parameters(), lr=0.1)
    backbone.train()
    backbone(torch.randn(2, 3, 32, 32)).square().mean().backward()
    optimizer.step()
    changed = {n for n, v in backbone.state_dict().items() if not torch.equal(v, before[n])}
    frozen = tuple(f"features.{name}." for name in ("stem", "block0", "block1"))
    assert not any(name.startswith(frozen) for name in changed)
    assert "features.block2.layers.depthwise.norm.running_mean" in changed
    assert "features.block2.layers.depthwise.conv.weight" in changed


def test_mobilenet_checkpoint_comes_back_whole(tmp_path):
    torch.manual_seed(1)
    network = UnaryNetwork(MobileNetV2(3), input_size=64, scales=(1.0, 0.5))
    model = DeepCRF(network, DenseCRF(), ("a", "b", "c")).eval()
    model.save(tmp_path / "model.safetensors")
    again = DeepCRF.load(tmp_path / "model.safetensors")
    assert again.configuration() == model.configuration()
    image = torch.rand(1, 3, 40, 51) * 255
    with torch.inference_mode():
        assert torch.equal(again.unary(image), model.unary(image))
