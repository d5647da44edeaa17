"""The topology of section 4.1, thin widths, and folding batch norm away."""

import pytest
import torch

from napari_deepcrf.models.unary import UnaryNetwork
from napari_deepcrf.models.vgg16 import HEADS, VGG16


@pytest.mark.parametrize("head", sorted(HEADS))
def test_306_pixels_give_a_40_by_40_map(head):
    network = VGG16(21, width=0.03, head=head).eval()
    sizes = []
    for stage in range(1, 6):
        pool = network.features.get_submodule(f"pool{stage}")
        pool.register_forward_hook(lambda _m, _i, output: sizes.append(output.shape[-1]))
    with torch.inference_mode():
        scores = network(torch.zeros(1, 3, 306, 306))
    assert sizes == [154, 78, 40, 40, 40]
    assert scores.shape == (1, 21, 40, 40)


def test_full_width_is_vgg16():
    with torch.device("meta"):
        network = VGG16(21, width=1.0, head="7x7")
    shapes = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    assert shapes["features.conv5_3.conv.weight"] == (512, 512, 3, 3)
    assert shapes["features.fc6.conv.weight"] == (4096, 512, 7, 7)
    assert shapes["features.fc7.conv.weight"] == (4096, 4096, 1, 1)
    assert sum(value.numel() for value in network.parameters()) == 134_346_581


@pytest.mark.parametrize(("height", "width"), [(8, 8), (63, 100), (375, 500), (9, 200)])
def test_scores_have_the_images_size(height, width):
    network = UnaryNetwork(VGG16(5, width=0.03, head="largefov"), input_size=64).eval()
    with torch.inference_mode():
        scores = network(torch.rand(2, 3, height, width) * 255)
    assert scores.shape == (2, 5, height, width)


def test_gradients_reach_the_first_layer_through_the_enlargement():
    network = UnaryNetwork(VGG16(3, width=0.06, head="4x4"), input_size=40)
    network(torch.rand(1, 3, 55, 61) * 255).square().mean().backward()
    assert network.backbone.features.conv1_1.conv.weight.grad.abs().sum() > 0


def test_the_scores_of_several_scales_are_averaged():
    torch.manual_seed(0)
    backbone = VGG16(3, width=0.06, head="smallfov").eval()
    image = torch.rand(1, 3, 51, 64) * 255
    with torch.inference_mode():
        large = UnaryNetwork(backbone, input_size=64)(image)
        small = UnaryNetwork(backbone, input_size=48)(image)
        both = UnaryNetwork(backbone, input_size=64, scales=(1.0, 0.75))(image)
    torch.testing.assert_close(both, (large + small) / 2)
    with pytest.raises(ValueError, match="scales: expected positive numbers"):
        UnaryNetwork(backbone, scales=(1.0, 0.0))


@pytest.mark.parametrize(
    ("settings", "name"),
    [({"width": 0.0}, "width"), ({"width": 1.5}, "width"), ({"head": "9x9"}, "head")],
)
def test_bad_settings_are_named(settings, name):
    with pytest.raises(ValueError, match=f"^{name}: expected"):
        VGG16(21, **settings)


def test_one_class_is_refused():
    with pytest.raises(ValueError, match="num_classes: expected at least 2, got 1"):
        VGG16(1, width=0.1)
