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


@pytest.mark.parametrize(("height", "width"), [(64, 64), (63, 100), (8, 9)])
def test_mobilenet_scores_every_eighth_pixel(height: int, width: int):
    scores = MobileNetV2(3).eval()(torch.zeros(2, 3, height, width))
    assert scores.shape == (2, 3, -(-height // 8), -(-width // 8))


def test_mobilenet_refuses_a_single_class():
    with pytest.raises(ValueError, match="num_classes: expected at least 2, got 1"):
        MobileNetV2(1)


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
