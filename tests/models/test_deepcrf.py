"""The joint model: gradients through both halves, and checkpoints that carry themselves."""

import json
import pickle

import pytest
import torch
from safetensors.torch import save_file

from napari_deepcrf.crf import CRFParameters, DenseCRF
from napari_deepcrf.crf.parameters import KernelParameters
from napari_deepcrf.models import VGG16, DeepCRF, UnaryNetwork
from napari_deepcrf.models.checkpoint import read_checkpoint, write_checkpoint

PARAMETERS = CRFParameters(
    w_spatial=1.5, theta_gamma=(2.0, 2.5), w_bilateral=4.0, theta_alpha=30.0, theta_beta=9.0
)


def assert_same_numbers(found: CRFParameters, expected: CRFParameters) -> None:
    for name, value in expected.to_dict().items():
        assert found.to_dict()[name] == pytest.approx(value), name


@pytest.fixture
def model() -> DeepCRF:
    torch.manual_seed(0)
    network = UnaryNetwork(VGG16(3, width=0.06, head="smallfov"), input_size=40)
    return DeepCRF(network, DenseCRF(PARAMETERS, iterations=3), ("sky", "sea", "sand")).eval()


def test_gradients_reach_network_and_crf(model):
    image = torch.rand(1, 3, 31, 45) * 255
    marginals = model(image)
    torch.testing.assert_close(marginals.sum(1), torch.ones(1, 31, 45))
    marginals[:, 1].log().mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
    assert model.network.backbone.features.conv1_1.conv.weight.grad.abs().sum() > 0
    assert all(parameter.grad.abs().sum() > 0 for parameter in model.crf.parameters())


def test_a_checkpoint_carries_its_configuration(model, tmp_path):
    path = tmp_path / "shore.safetensors"
    model.save(path)
    loaded = DeepCRF.load(path)
    assert loaded.name == "shore"
    assert loaded.class_names == ("sky", "sea", "sand")
    assert loaded.network.backbone.configuration() == model.network.backbone.configuration()
    assert loaded.crf.options == model.crf.options
    assert_same_numbers(loaded.crf.crf_parameters(), PARAMETERS)
    assert not loaded.training
    image = torch.rand(1, 3, 20, 26) * 255
    with torch.inference_mode():
        assert torch.equal(loaded.unary(image), model.unary(image))
        torch.testing.assert_close(loaded(image), model(image))


def test_half_precision_keeps_the_crf_exact(model, tmp_path):
    path = tmp_path / "half.safetensors"
    model.save(path, half=True)
    tensors, _ = read_checkpoint(path)
    assert tensors["backbone.score.weight"].dtype == torch.float16
    loaded = DeepCRF.load(path)
    assert loaded.network.backbone.score.weight.dtype == torch.float32
    assert_same_numbers(loaded.crf.crf_parameters(), PARAMETERS)


def test_half_precision_leaves_counters_whole(tmp_path):
    """Batch norm counts its batches in whole numbers."""
    network = UnaryNetwork(VGG16(2, width=0.03, head="smallfov", batch_norm=True), input_size=40)
    path = tmp_path / "half.safetensors"
    DeepCRF(network, DenseCRF(), ("sky", "sea")).save(path, half=True)
    norm = DeepCRF.load(path).network.backbone.features.conv1_1.norm
    assert norm.num_batches_tracked.dtype == torch.int64
    assert norm.running_var.dtype == torch.float32


@pytest.mark.parametrize("kind", ["diagonal", "full"])
def test_learnt_compatibilities_and_extra_kernels_are_kept(kind, model, tmp_path):
    extra = KernelParameters(weight=0.5, theta_position=(4.0, 6.0))
    crf = DenseCRF(PARAMETERS, compatibility=kind, num_classes=3, extra_kernels=[extra])
    with torch.no_grad():
        crf.compatibility.values.mul_(0.7)
    model.crf = crf
    path = tmp_path / "model.safetensors"
    model.save(path)
    loaded = DeepCRF.load(path).crf
    assert torch.equal(loaded.compatibility.values, crf.compatibility.values)
    assert loaded.kernels[2].snapshot().theta_position == pytest.approx((4.0, 6.0))


def test_a_truncated_checkpoint_is_refused(model, tmp_path):
    path = tmp_path / "cut.safetensors"
    model.save(path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"not a whole \.safetensors file") as caught:
        DeepCRF.load(path)
    assert "\n" not in str(caught.value)


class Explosive:
    def __reduce__(self):
        return (pytest.fail, ("the pickle was run",))


@pytest.mark.parametrize("writer", [torch.save, lambda value, path: path.write_bytes(value)])
def test_a_pickle_is_refused_and_never_run(writer, tmp_path):
    path = tmp_path / "evil.safetensors"
    writer(Explosive() if writer is torch.save else pickle.dumps(Explosive()), path)
    with pytest.raises(ValueError, match="got a pickle, which is never read"):
        DeepCRF.load(path)


def test_another_architecture_is_refused(model, tmp_path):
    path = tmp_path / "other.safetensors"
    write_checkpoint(
        path, model.network.state_dict(), {**model.configuration(), "architecture": "unet"}
    )
    with pytest.raises(ValueError, match=r"expected architecture 'vgg16.*, got 'unet'"):
        DeepCRF.load(path)


def test_tensors_of_another_shape_are_refused(model, tmp_path):
    path = tmp_path / "wide.safetensors"
    config = model.configuration()
    config["network"]["width"] = 0.1
    write_checkpoint(path, model.network.state_dict(), config)
    with pytest.raises(ValueError, match=r"another architecture: backbone\.features"):
        DeepCRF.load(path)


def test_another_safetensors_file_is_refused(tmp_path):
    path = tmp_path / "foreign.safetensors"
    save_file({"weight": torch.zeros(2)}, path)
    with pytest.raises(ValueError, match="got another safetensors file"):
        DeepCRF.load(path)


def test_weights_that_are_not_finite_are_refused(model, tmp_path):
    path = tmp_path / "diverged.safetensors"
    with torch.no_grad():
        model.network.backbone.score.weight[0, 0] = float("nan")
    model.save(path)
    with pytest.raises(ValueError, match=r"backbone\.score\.weight: expected finite weights"):
        DeepCRF.load(path)


@pytest.mark.parametrize("damage", ["{", "[]", json.dumps({"architecture": "vgg16-dense-crf"})])
def test_a_damaged_configuration_is_refused(damage, tmp_path):
    path = tmp_path / "damaged.safetensors"
    metadata = {"format": "napari-deepcrf", "version": "1", "config": damage}
    save_file({"weight": torch.zeros(2)}, path, metadata)
    with pytest.raises(ValueError, match="configuration is damaged"):
        DeepCRF.load(path)


def test_compatibilities_that_are_not_finite_are_refused(model, tmp_path):
    path = tmp_path / "diverged.safetensors"
    model.crf = DenseCRF(PARAMETERS, compatibility="diagonal", num_classes=3)
    with torch.no_grad():
        model.crf.compatibility.values[1] = float("nan")
    model.save(path)
    with pytest.raises(ValueError, match="compatibility: expected finite numbers, got NaN"):
        DeepCRF.load(path)


def test_an_unknown_name_is_no_file():
    with pytest.raises(FileNotFoundError, match="voc-huge: no model of this name"):
        DeepCRF.load("voc-huge")


def test_a_failed_save_leaves_the_old_file(model, tmp_path, monkeypatch):
    path = tmp_path / "model.safetensors"
    model.save(path)
    before = path.read_bytes()
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        model.save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_compatibilities_must_match_the_scores(model):
    crf = DenseCRF(compatibility="full", num_classes=2)
    with pytest.raises(ValueError, match="crf: expected compatibilities of 3 classes, got 2"):
        DeepCRF(model.network, crf, model.class_names)


def test_names_must_match_the_scores():
    network = UnaryNetwork(VGG16(3, width=0.03, head="smallfov"))
    with pytest.raises(ValueError, match="class_names: expected 3 names, got 2"):
        DeepCRF(network, DenseCRF(), ("sky", "sea"))


def test_a_model_has_no_more_classes_than_a_label_image_holds():
    with torch.device("meta"):
        network = UnaryNetwork(VGG16(256, width=0.03, head="smallfov"))
    with pytest.raises(ValueError, match="class_names: expected at most 255 names, got 256"):
        DeepCRF(network, DenseCRF(), tuple(map(str, range(256))))
