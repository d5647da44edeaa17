"""Segmenting and refining arrays."""

import numpy as np
import pytest
import torch

import napari_deepcrf as ndc
from napari_deepcrf.inference import Predictor
from napari_deepcrf.inference import predictor as inference
from napari_deepcrf.inference.tiled_image import TiledImage
from napari_deepcrf.models import VGG16, DeepCRF, UnaryNetwork


@pytest.fixture(scope="module")
def model() -> DeepCRF:
    torch.manual_seed(0)
    network = UnaryNetwork(VGG16(3, width=0.06, head="smallfov"), input_size=40)
    crf = ndc.DenseCRF(ndc.CRFParameters(w_bilateral=4), iterations=3)
    return DeepCRF(network, crf, ("sky", "sea", "sand"))


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (33, 47, 3), dtype=np.uint8)


def test_a_segmentation_holds_every_update(model, image):
    seen = []
    result = Predictor(model).segment(image, on_progress=lambda *done: seen.append(done))
    assert result.unary.shape == (3, 33, 47)
    assert result.marginals.shape == (4, 3, 33, 47)
    assert result.labels.shape == (33, 47)
    assert result.labels.dtype == np.uint8
    assert result.class_names == ("sky", "sea", "sand")
    np.testing.assert_allclose(result.marginals.sum(1), 1, atol=1e-5)
    softmax = torch.from_numpy(result.unary).softmax(0).numpy()
    np.testing.assert_allclose(result.marginals[0], softmax, atol=1e-6)
    assert (result.labels == result.marginals[-1].argmax(0)).all()
    assert seen[0][0] == 0
    assert seen[-1][0] == seen[-1][1]


def test_the_callback_can_stop_the_work(model, image):
    class CancelledError(Exception):
        pass

    def stop(done, total):
        if done == 1:
            raise CancelledError

    with pytest.raises(CancelledError):
        Predictor(model).segment(image, on_progress=stop)


def test_a_path_is_a_model_too(model, image, tmp_path):
    path = tmp_path / "shore.safetensors"
    model.save(path)
    result = ndc.segment(image, path)
    expected = ndc.segment(image, model)
    np.testing.assert_allclose(result.unary, expected.unary, atol=1e-5)


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_refining_sharpens_soft_probabilities(channels):
    truth = np.zeros((40, 50), int)
    truth[:, 25:] = 1
    noise = np.random.default_rng(0).uniform(-0.45, 0.3, truth.shape)
    second = np.where(truth == 1, 0.6, 0.4) + noise * np.where(truth == 1, 1, -1)
    second = second.clip(0.01, 0.99)
    image = np.repeat((truth * 150 + 50)[..., None], channels, axis=2).astype(np.uint8)
    before = (second > 0.5) == truth
    parameters = ndc.CRFParameters(theta_alpha=20, w_bilateral=5)
    marginals = ndc.refine(image, np.stack([1 - second, second]), parameters)
    assert marginals.shape == (2, 40, 50)
    assert before.mean() < 0.9
    assert (marginals.argmax(0) == truth).mean() > 0.99


@pytest.mark.parametrize(
    ("probabilities", "message"),
    [
        (np.ones((2, 9, 9)), r"expected \(L, 33, 47\) with L ≥ 2, got \(2, 9, 9\)"),
        (np.ones((1, 33, 47)), "with L ≥ 2"),
        (-np.ones((2, 33, 47)), "expected finite values ≥ 0"),
        (np.zeros((2, 33, 47)), "with a positive sum per pixel"),
        (np.full((2, 33, 47), np.nan), "expected finite values ≥ 0"),
    ],
)
def test_bad_probabilities_are_refused(image, probabilities, message):
    with pytest.raises(ValueError, match=message):
        ndc.refine(image, probabilities)


@pytest.mark.parametrize("kind", [complex, str, object])
def test_probabilities_must_be_real_numbers(image, kind):
    with pytest.raises(TypeError, match="probabilities: expected real numbers, got"):
        ndc.refine(image, np.full((2, 33, 47), 0.5).astype(kind))


@pytest.fixture
def full_gpu(monkeypatch) -> None:
    """A GPU on which nothing can be put."""

    def put(pixels: np.ndarray, device: torch.device) -> torch.Tensor:
        if device.type == "cuda":
            raise torch.OutOfMemoryError("CUDA out of memory")
        return torch.from_numpy(pixels).permute(2, 0, 1)[None]

    monkeypatch.setattr(inference, "resolve_device", lambda name: torch.device("cuda", 0))
    monkeypatch.setattr(inference, "_tensor", put)
    monkeypatch.setattr(torch.nn.Module, "to", lambda module, *args, **kwargs: module)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)


def test_a_full_gpu_leaves_the_image_to_the_cpu(model, image, caplog, request):
    expected = Predictor(model, device="cpu").segment(image)
    request.getfixturevalue("full_gpu")
    predictor = Predictor(model)
    assert predictor.device == torch.device("cuda", 0)
    result = predictor.segment(image)
    np.testing.assert_allclose(result.marginals, expected.marginals, atol=1e-5)
    np.testing.assert_allclose(predictor.unary(image), expected.unary, atol=1e-5)
    warning = "cuda:0 ran out of memory; this image is done on the CPU"
    assert [record.message for record in caplog.records] == [warning, warning]


def test_a_full_gpu_gets_the_image_in_tiles_first(model, image, caplog, full_gpu, monkeypatch):
    tiled = np.full(image.shape[:2], 2, np.uint8)
    monkeypatch.setattr(TiledImage, "labels", lambda self: tiled)
    np.testing.assert_array_equal(Predictor(model).labels(image), tiled)
    warning = "cuda:0 ran out of memory; this image is done in tiles"
    assert [record.message for record in caplog.records] == [warning]


def test_half_precision_ends_before_the_scores_are_enlarged(model, image):
    tensor = torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float()
    with torch.inference_mode():
        whole = model.unary(tensor)
        with torch.autocast("cpu", torch.bfloat16):
            half = model.unary(tensor)
    assert half.dtype == torch.float32
    assert not torch.equal(half, whole)
    torch.testing.assert_close(half, whole, rtol=0.05, atol=0.05 * float(whole.abs().max()))


def test_other_devices_are_refused(model, image):
    with pytest.raises(ValueError, match=r"device: expected auto, cpu, cuda.*got 'tpu0'"):
        Predictor(model, device="tpu0")
    with pytest.raises(ValueError, match=r"device: expected auto, cpu, cuda.*got 'tpu0'"):
        ndc.refine(image, np.full((2, 33, 47), 0.5), device="tpu0")
