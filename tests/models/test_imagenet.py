"""torchvision's ImageNet file: kernels of fc6 and fc7, hash, and files that are none."""

import zipfile

import pytest
import torch

from napari_deepcrf.models import VGG16
from napari_deepcrf.models.imagenet import convert, load_imagenet

# Output and input channels of the convolutions, by torchvision's index.
CONVOLUTIONS = {
    0: (64, 3), 2: (64, 64),
    5: (128, 64), 7: (128, 128),
    10: (256, 128), 12: (256, 256), 14: (256, 256),
    17: (512, 256), 19: (512, 512), 21: (512, 512),
    24: (512, 512), 26: (512, 512), 28: (512, 512),
}  # fmt: skip


def torchvision_vgg16() -> dict[str, torch.Tensor]:
    """Keys and shapes of the published file; each tensor repeats one row, so it is small."""

    def repeated(*shape: int) -> torch.Tensor:
        row = torch.linspace(-1, 1, shape[-1])
        return row.expand(shape)

    weights = {}
    for index, (outputs, inputs) in CONVOLUTIONS.items():
        weights[f"features.{index}.weight"] = repeated(outputs, inputs, 3, 3)
        weights[f"features.{index}.bias"] = torch.full((1,), float(index)).expand(outputs)
    for index, (outputs, inputs) in {0: (4096, 25088), 3: (4096, 4096), 6: (1000, 4096)}.items():
        weights[f"classifier.{index}.weight"] = repeated(outputs, inputs)
        weights[f"classifier.{index}.bias"] = torch.full((1,), 0.5).expand(outputs)
    return weights


@pytest.fixture(params=["archive", "before PyTorch 1.6"])
def file(request, tmp_path):
    """In the format of the published file, which is older, and as PyTorch would write it today."""
    path = tmp_path / "vgg16-397923af.pth"
    archive = request.param == "archive"
    torch.save(torchvision_vgg16(), path, _use_new_zipfile_serialization=archive)
    return path


def test_every_layer_but_the_top_is_loaded(file):
    network = VGG16(21, head="largefov")
    top = network.score.weight.clone()
    load_imagenet(network, file)
    third = torch.tensor([-1.0, 0.0, 1.0]).expand(512, 512, 3, 3)
    assert torch.equal(network.features.conv5_3.conv.weight, third)
    assert torch.equal(network.features.conv5_3.conv.bias, torch.full((512,), 28.0))
    row = torch.linspace(-1, 1, 25088).view(512, 7, 7)
    assert torch.equal(network.features.fc6.conv.weight[5], row[:, ::3, ::3])
    fc7 = torch.linspace(-1, 1, 4096)[::4]
    assert torch.equal(network.features.fc7.conv.weight[9, :, 0, 0], fc7)
    assert torch.equal(network.score.weight, top)


def test_fc6_keeps_all_taps_of_the_7x7_head_and_every_second_of_the_4x4():
    matrix = torch.arange(25088.0).expand(4096, 25088)
    kernel = torch.arange(25088.0).view(512, 7, 7)
    whole = convert("fc6", "weight", matrix, "7x7")
    assert whole.shape == (4096, 512, 7, 7)
    assert torch.equal(whole[4095], kernel)
    sampled = convert("fc6", "weight", matrix, "4x4")
    assert torch.equal(sampled[0], kernel[:, ::2, ::2])
    assert convert("fc7", "weight", torch.zeros(1).expand(4096, 4096), "4x4").shape == (
        4096, 4096, 1, 1,
    )  # fmt: skip


def test_fc6_as_a_convolution_is_the_matrix_product():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(1, 512, 7, 7, generator=generator)
    matrix = torch.randn(1, 25088, generator=generator).expand(4096, -1)
    kernel = convert("fc6", "weight", matrix, "7x7")[:2]
    result = torch.nn.functional.conv2d(features, kernel)[0, :, 0, 0]
    torch.testing.assert_close(result, (matrix[:2] @ features.flatten()), atol=1e-2, rtol=1e-4)


@pytest.mark.parametrize("settings", [{"width": 0.25}, {"width": 1.0, "batch_norm": True}])
def test_other_networks_are_refused(settings, file):
    with torch.device("meta"):
        network = VGG16(21, head="largefov", **settings)
    with pytest.raises(ValueError, match="backbone: expected full width without batch norm"):
        load_imagenet(network, file)


def test_a_file_of_other_tensors_is_refused(tmp_path):
    with torch.device("meta"):
        network = VGG16(21, head="largefov")
    path = tmp_path / "other.pth"
    torch.save({"weight": torch.zeros(3)}, path)
    with pytest.raises(ValueError, match=r"found no features\.0\.weight"):
        load_imagenet(network, path)


def test_a_truncated_file_and_code_in_a_pickle_are_refused(tmp_path):
    with torch.device("meta"):
        network = VGG16(21, head="largefov")
    path = tmp_path / "bad.pth"
    path.write_bytes(b"PK\x03\x04 and then nothing")
    with pytest.raises(ValueError, match="not a whole file of tensors") as caught:
        load_imagenet(network, path)
    assert "\n" not in str(caught.value)
    torch.save({"features.0.weight": zipfile.ZipFile}, path)
    with pytest.raises(ValueError, match="not a whole file of tensors"):
        load_imagenet(network, path)


def test_a_missing_file_is_named(tmp_path):
    with torch.device("meta"):
        network = VGG16(21, head="largefov")
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pth: no such file"):
        load_imagenet(network, tmp_path / "nowhere.pth")
