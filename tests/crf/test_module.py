"""The module: its parameters, prepared lattices, batches and messages."""

import pytest
import torch

from napari_deepcrf.crf import CRFParameters, DenseCRF


@pytest.fixture
def inputs(photo, smooth_scores):
    image = torch.stack([torch.tensor(photo(n, 11, 13)) for n in ("astronaut", "chelsea")])
    scores = torch.stack([torch.tensor(smooth_scores(3, 11, 13, seed)) for seed in (0, 1)])
    return scores, image


@pytest.fixture
def crf():
    return DenseCRF(CRFParameters(theta_beta=(10, 20, 30)), backend="torch")


def test_nine_parameters_by_default():
    assert sum(p.numel() for p in DenseCRF().parameters()) == 9


def test_snapshot_gives_the_parameters_back():
    for params in (
        CRFParameters(),
        CRFParameters(theta_gamma=(2, 3), theta_alpha=(40, 60), theta_beta=(10, 20, 30)),
    ):
        snapshot = DenseCRF(params).crf_parameters()
        for name, value in params.to_dict().items():
            assert getattr(snapshot, name) == pytest.approx(
                tuple(value) if isinstance(value, list) else value, rel=1e-6
            )


def test_state_travels(crf, inputs):
    other = DenseCRF(backend="torch")
    other.load_state_dict(crf.state_dict())
    with torch.no_grad():
        assert torch.equal(other(*inputs), crf(*inputs))


def test_a_batch_is_its_images_one_by_one(crf, inputs):
    scores, image = inputs
    with torch.no_grad():
        trace = crf.trace(scores, image)
        assert trace.shape == (6, 2, 3, 11, 13)
        torch.testing.assert_close(trace[0], torch.softmax(scores, 1))
        assert torch.equal(trace[-1], crf(scores, image))
        for b in (0, 1):
            assert torch.equal(trace[:, b], crf.trace(scores[b : b + 1], image[b : b + 1])[:, 0])


def test_only_a_kernel_whose_width_changed_is_built_again(crf, inputs):
    scores, image = inputs
    first = crf.prepare(image)
    with torch.no_grad():
        crf.bilateral.log_theta_colour.add_(0.3)
        crf.spatial.log_weight.add_(1.0)
        second = crf.prepare(image, previous=first)
        assert second.kernels[0] is first.kernels[0]
        assert second.kernels[1] is not first.kernels[1]
        assert torch.equal(crf(scores, image, prepared=second), crf(scores, image))
    third = crf.prepare(image.flip(0), previous=second)
    assert third.kernels[1] is not second.kernels[1]


def test_a_stale_preparation_is_refused(crf, inputs):
    scores, image = inputs
    prepared = crf.prepare(image)
    with pytest.raises(
        ValueError,
        match=r"prepared: expected images of shape \(2, 3, 9, 13\), got \(2, 3, 11, 13\)",
    ):
        crf(scores[:, :, :9], image[:, :, :9], prepared=prepared)
    with torch.no_grad():
        crf.spatial.log_theta_position.add_(0.1)
    with pytest.raises(ValueError, match=r"prepared: made for other kernel widths.*got 3, 3$"):
        crf(scores, image, prepared=prepared)


@pytest.mark.parametrize(
    "run",
    [
        lambda crf, *inputs, prepared: crf(*inputs, prepared=prepared),
        lambda crf, *inputs, prepared: crf.trace(*inputs, prepared=prepared),
        lambda crf, *inputs, prepared: torch.stack(
            [update.marginals for update in crf.updates(*inputs, prepared=prepared)]
        ),
    ],
    ids=["marginals", "trace", "updates"],
)
def test_a_preparation_saves_all_building(crf, inputs, run, monkeypatch):
    scores, image = inputs
    prepared = crf.prepare(image)
    with torch.no_grad():
        expected = run(crf, scores, image, prepared=None)
        monkeypatch.setattr(crf, "_prepare", lambda *_: pytest.fail("it was prepared once more"))
        assert torch.equal(run(crf, scores, image, prepared=prepared), expected)


@pytest.mark.parametrize("backend", ["torch", "numba"])
def test_a_preparation_of_inference_mode_serves_training_too(inputs, backend):
    scores, image = inputs
    crf = DenseCRF(backend=backend)
    with torch.inference_mode():
        prepared = crf.prepare(image)
        crf(scores, image, prepared=prepared)  # keeps the row sums
    for only in (list(crf.parameters()), [crf.spatial.log_weight]):
        for parameter in crf.parameters():
            parameter.requires_grad_(any(parameter is one for one in only))
        loss = crf(scores, image, prepared=prepared)[:, 0].square().sum()
        expected = crf(scores, image)[:, 0].square().sum()
        for own, other in zip(
            *(torch.autograd.grad(x, only) for x in (loss, expected)), strict=True
        ):
            assert torch.equal(own, other)


def test_an_isotropic_width_serves_any_number_of_channels(inputs):
    scores, image = inputs
    three = DenseCRF(CRFParameters(theta_beta=20), backend="torch")
    one = DenseCRF(CRFParameters(theta_beta=20), channels=1, backend="torch")
    with torch.no_grad():
        assert torch.equal(three(scores, image[:, :1]), one(scores, image[:, :1]))


def test_different_widths_need_their_axes_and_channels(crf, inputs):
    scores, image = inputs
    with pytest.raises(ValueError, match="theta_beta: expected 1 widths"):
        crf(scores, image[:, :1])
    for name in ("theta_gamma", "theta_alpha"):
        three = DenseCRF(CRFParameters(**{name: (1, 2, 3)}), backend="torch")
        with pytest.raises(ValueError, match=f"^{name}: expected 2 widths.*got 3"):
            three(scores, image)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"iterations": -1}, "iterations: expected at least 0, got -1"),
        ({"normalization": "rows"}, "normalization: expected one of symmetric, before"),
        ({"quality": "best"}, "quality: expected one of fast, accurate, exact; got 'best'"),
        ({"backend": "x"}, "backend: expected one of auto, torch, numba, triton; got 'x'"),
        ({"inference": "damped"}, "inference: expected one of parallel, convergent"),
        ({"compatibility": "learnt"}, "compatibility: expected one of potts, diagonal, full"),
        ({"compatibility": "full"}, "num_classes: expected a number for a full"),
        ({"image_dims": 4}, "image_dims: expected 2 or 3, got 4"),
    ],
)
def test_unknown_choices_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        DenseCRF(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"params": {"w_spatial": 3}}, "params: expected CRFParameters, got dict"),
        ({"iterations": 2.5}, "iterations: expected a whole number, got 2.5"),
        ({"num_classes": 2.5, "compatibility": "full"}, "num_classes: expected a whole number"),
        ({"channels": "3"}, "channels: expected a whole number, got '3'"),
        ({"iterations": True}, "iterations: expected a whole number, got True"),
        ({"extra_kernels": [(1, 2)]}, "extra_kernels: expected KernelParameters, got tuple"),
    ],
)
def test_wrong_types_are_refused(options, message):
    with pytest.raises(TypeError, match=message):
        DenseCRF(**options)


@pytest.mark.parametrize("kind", ["diagonal", "full"])
@pytest.mark.parametrize("backend", ["torch", "numba"])
@pytest.mark.parametrize("classes", [1, 4])
def test_a_compatibility_of_other_labels_is_refused(inputs, kind, backend, classes):
    crf = DenseCRF(compatibility=kind, num_classes=classes, backend=backend)
    with pytest.raises(ValueError, match=f"scores: expected {classes} labels.*got 3$"):
        crf(*inputs)


@pytest.mark.parametrize("quality", ["fast", "accurate", "exact"])
@pytest.mark.parametrize("name", ["theta_gamma", "theta_alpha", "theta_beta"])
def test_widths_that_learning_has_spoilt_are_named(inputs, quality, name):
    crf = DenseCRF(quality=quality, backend="torch")
    kernel = crf.spatial if name == "theta_gamma" else crf.bilateral
    with torch.no_grad():
        spoilt = kernel.log_theta_colour if name == "theta_beta" else kernel.log_theta_position
        spoilt[0] = float("nan")
    with pytest.raises(ValueError, match=rf"{name}=\(nan, .*: expected kernel widths, got NaN"):
        crf(*inputs)


@pytest.mark.parametrize("quality", ["fast", "accurate", "exact"])
def test_widths_may_outgrow_their_precision(inputs, quality):
    """A logarithm of 200 is an infinite width in float32: all pixels are alike."""
    crf = DenseCRF(quality=quality, backend="torch")
    with torch.no_grad():
        crf.spatial.log_theta_position.fill_(200.0)
        endless = crf(*inputs)
        crf.spatial.log_theta_position.fill_(25.0)
        torch.testing.assert_close(endless, crf(*inputs))


def test_bad_inputs_are_refused(crf, inputs):
    scores, image = inputs
    with torch.no_grad():
        for call in (crf, crf.trace, lambda *given: next(crf.updates(*given))):
            with pytest.raises(TypeError, match=r"scores: expected a torch.Tensor, got list"):
                call([[1.0]], image)
    for call in (crf, crf.trace):
        with pytest.raises(ValueError, match=r"scores: expected \(B, L"):
            call(scores[:, :, :5], image)
        with pytest.raises(ValueError, match=r"scores: expected \(B, L"):
            call(scores[0], image)
        with pytest.raises(
            ValueError, match=r"image: expected \(B, C, H, W\) or .*got \(3, 11, 13"
        ):
            call(scores[0], image[0])
        with pytest.raises(ValueError, match="image: expected at least one image, channel and"):
            call(scores, image[:, :0])
        with pytest.raises(ValueError, match="scores: expected at least one label"):
            call(scores[:, :0], image)
        with pytest.raises(TypeError, match=r"image: expected a torch.Tensor, got ndarray"):
            call(scores, image.numpy())
        with pytest.raises(TypeError, match=r"image: expected real numbers, got torch.complex64"):
            call(scores, image + 0j)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_are_not_finite_are_refused(crf, inputs, value):
    scores, image = inputs
    broken = image.clone()
    broken[1, 2, 3, 4] = value
    with pytest.raises(ValueError, match="image: expected finite numbers"):
        crf(scores, broken)
    broken = scores.clone()
    broken[1, 2, 3, 4] = value
    with torch.no_grad():
        with pytest.raises(ValueError, match="scores: expected finite numbers"):
            crf.trace(broken, image)
        with pytest.raises(ValueError, match="scores: expected finite numbers"):
            next(crf.updates(broken, image))


def test_training_sees_scores_that_are_not_finite_in_its_loss(crf, inputs):
    scores, image = inputs
    broken = scores.clone()
    broken[0, 0, 0, 0] = float("nan")
    assert crf(broken.requires_grad_(), image).sum().isnan()


def test_whole_numbers_are_images_too(crf, inputs):
    scores, image = inputs
    with torch.no_grad():
        assert torch.equal(crf(scores, image.round().byte()), crf(scores, image.round()))


def test_no_updates_give_the_scores_marginals(inputs):
    scores, image = inputs
    with torch.no_grad():
        torch.testing.assert_close(
            DenseCRF(iterations=0, backend="torch")(scores, image), torch.softmax(scores, 1)
        )
