import numpy as np
import pytest
import torch

from napari_deepcrf.crf import CRFParameters, DenseCRF, KernelParameters
from napari_deepcrf.inference import Predictor
from napari_deepcrf.models import DeepCRF
from napari_deepcrf.models.crf_config import crf_configuration
from napari_deepcrf.session import CRFSettings, ImageSource, ResultReady, ScoreSource, Session
from napari_deepcrf.session.crf_from_settings import dense_crf

EXTRA = KernelParameters(weight=2.0, theta_position=4.0, theta_colour=(30.0, 20.0, 10.0))


def run(session, job):
    """Run a job to its end; which of its events were taken."""
    return [session.receive(job, event) for event in job.steps()]


def other_image(image, key="b"):
    return ImageSource(key=key, name=key, shape=image.shape, read=image.read)


def test_segment_gives_the_predictors_result(session, model, image):
    run(session, session.segment())
    expected = Predictor(model, device="cpu").segment(image.read())
    result = session.result
    np.testing.assert_allclose(result.unary, expected.unary, atol=1e-5)
    np.testing.assert_allclose(result.marginals.swapaxes(0, 1), expected.marginals, atol=2e-3)
    np.testing.assert_array_equal(result.labels, expected.labels)
    assert result.class_names == model.class_names
    assert session.fresh


def test_a_dark_image_is_not_stretched_twice(session, model):
    dark = np.random.default_rng(0).integers(0, 2, (41, 53, 3), dtype=np.uint8)
    session.choose_image(ImageSource("dark", "dark", (41, 53), lambda: dark))
    run(session, session.segment())
    expected = Predictor(model, device="cpu").unary(dark)
    np.testing.assert_allclose(session.result.unary, expected, atol=1e-5)


def test_progress_counts_up_to_its_total(session):
    events = list(session.segment().steps())
    progress = [(e.done, e.total) for e in events if hasattr(e, "total")]
    assert progress == sorted(progress)
    assert len({total for _, total in progress}) == 1
    assert progress[-1][0] <= progress[-1][1]
    assert isinstance(events[-1], ResultReady)


def test_a_model_brings_its_learned_settings(session, model):
    assert session.settings.parameters == model.crf.crf_parameters()
    assert session.settings.iterations == model.crf.iterations
    session.change_settings(theta_alpha=55.0)
    session.back_to_learned()
    assert session.settings.parameters == model.crf.crf_parameters()


def test_refine_equals_a_crf_with_the_new_settings(session, image):
    run(session, session.segment())
    session.change_settings(theta_alpha=9.0, w_spatial=1.5, iterations=2)
    assert not session.fresh
    run(session, session.refine())
    assert session.fresh
    result = session.result
    scores = torch.from_numpy(result.unary)[None]
    pixels = torch.from_numpy(image.read().astype(np.float32)).permute(2, 0, 1)[None]
    trace = dense_crf(session.settings, channels=3).trace(scores, pixels)[:, 0]
    np.testing.assert_allclose(result.marginals.swapaxes(0, 1), trace.detach().numpy(), atol=2e-3)


def test_only_the_kernel_whose_width_changed_is_built_again(session):
    run(session, session.segment())
    spatial, bilateral = session.cache._prepared.kernels
    session.change_settings(theta_gamma=7.0)
    run(session, session.refine())
    assert session.cache._prepared.kernels[1] is bilateral
    assert session.cache._prepared.kernels[0] is not spatial
    spatial = session.cache._prepared.kernels[0]
    session.change_settings(w_bilateral=2.0)
    run(session, session.refine())
    assert session.cache._prepared.kernels == (spatial, bilateral)


def test_of_two_requests_only_the_later_is_taken(session):
    run(session, session.segment())
    session.change_settings(theta_alpha=10.0)
    early = session.refine()
    session.change_settings(theta_alpha=40.0)
    late = session.refine()
    assert any(run(session, late))
    wanted = session.result
    assert not any(run(session, early))
    assert session.result is wanted
    assert wanted.identity.settings.parameters.theta_alpha == 40.0


def test_a_result_for_an_image_that_was_swapped_is_dropped(session, image):
    job = session.segment()
    events = list(job.steps())
    session.choose_image(other_image(image))
    assert not any(session.receive(job, event) for event in events)
    assert session.result is None


def test_a_cancelled_job_delivers_nothing(session):
    job = session.segment()
    events = list(job.steps())
    session.cancel(job)
    assert not any(session.receive(job, event) for event in events)
    assert session.result is None


@pytest.mark.parametrize("change", ["image", "no image", "model", "settings", "scores"])
def test_every_change_marks_the_result_out_of_date(session, model, image, change):
    run(session, session.segment())
    seen = []
    session.freshness_changed.connect(seen.append)
    result = session.result
    if change == "image":
        session.choose_image(other_image(image))
    elif change == "no image":
        session.choose_image(None)
    elif change == "model":
        session.choose_model("again", model)
    elif change == "settings":
        session.change_settings(w_bilateral=1.25)
    else:
        session.choose_scores(ScoreSource("p", "p", ("a", "b"), lambda: None))
    assert seen == [False]
    assert session.result is result


def test_going_back_to_an_image_brings_its_result_while_someone_holds_it(session, image):
    run(session, session.segment())
    first, other = session.result, other_image(image)
    session.choose_image(other)
    run(session, session.segment())
    assert session.would_make(first.identity)
    seen = []
    session.identity_changed.connect(lambda: seen.append(session.fresh))
    session.choose_image(image)
    assert session.result is first
    assert seen == [True]
    session.change_settings(w_bilateral=1.25)
    assert not session.would_make(first.identity)
    session.choose_image(other)  # nobody held that one
    assert session.result is first
    assert not session.fresh


def test_going_back_makes_the_result_fresh_again(session, image):
    run(session, session.segment())
    session.change_settings(w_bilateral=1.25)
    session.back_to_learned()
    session.choose_image(other_image(image))
    session.choose_image(image)
    assert session.fresh


def test_another_image_needs_segmenting_before_refining(session, image):
    run(session, session.segment())
    session.choose_image(other_image(image))
    assert not session.can_refine()
    with pytest.raises(ValueError, match="segment it first"):
        session.refine()


def test_the_curve_belongs_to_the_result(session):
    run(session, session.segment())
    curves = []
    session.divergence_changed.connect(curves.append)
    run(session, session.measure())
    assert len(curves[-1]) == session.settings.iterations + 1
    assert np.isfinite(curves[-1]).all()
    session.change_settings(theta_beta=40.0)
    assert session.measure() is None
    run(session, session.refine())
    assert curves[-1] == ()


def test_convergent_inference_never_raises_the_divergence(session):
    session.change_settings(inference="convergent", iterations=6)
    run(session, session.segment())
    curves = []
    session.divergence_changed.connect(curves.append)
    run(session, session.measure())
    assert (np.diff(curves[-1]) <= 1e-6).all()


def test_a_learned_compatibility_is_used_until_potts_is_chosen(session, model, image):
    crf = DenseCRF(model.crf.crf_parameters(), iterations=3, compatibility="full", num_classes=3)
    values = torch.tensor([[1.0, 0.4, 0.0], [0.4, 0.7, -0.2], [0.0, -0.2, 1.3]])
    crf.compatibility.load_state_dict({"values": values})
    session.choose_model("full", DeepCRF(model.network, crf, model.class_names))
    run(session, session.segment())
    expected = Predictor(session.model, device="cpu").segment(image.read()).marginals
    found = session.result.marginals.swapaxes(0, 1)
    np.testing.assert_allclose(found, expected, atol=2e-3)
    session.change_settings(compatibility="potts")
    run(session, session.refine())
    potts = Predictor(model, device="cpu").segment(image.read()).marginals
    np.testing.assert_allclose(session.result.marginals.swapaxes(0, 1), potts, atol=2e-3)


@pytest.mark.parametrize(
    "options",
    [
        {"self_term": False},
        {"quality": "accurate"},
        {"inference": "convergent"},
        {"extra_kernels": [EXTRA]},
    ],
)
def test_a_models_own_way_to_run_its_crf_is_taken_over(session, model, options):
    crf = DenseCRF(model.crf.crf_parameters(), iterations=3, **options)
    session.choose_model("other", DeepCRF(model.network, crf, model.class_names))
    found = crf_configuration(dense_crf(session.settings, channels=3))
    assert found == crf_configuration(crf)


def test_a_model_of_more_updates_than_the_dock_shows_is_usable(session, model):
    crf = DenseCRF(model.crf.crf_parameters(), iterations=60)
    session.choose_model("long", DeepCRF(model.network, crf, model.class_names))
    assert session.settings.iterations == 50


def test_scores_of_another_tool_are_refined(session, image):
    rng = np.random.default_rng(3)
    scores = rng.normal(size=(2, *image.shape)).astype(np.float32)
    session.choose_scores(ScoreSource("p", "forest", ("no", "yes"), lambda: scores))
    assert session.class_names == ("no", "yes")
    run(session, session.segment())
    np.testing.assert_array_equal(session.result.unary, scores)
    assert session.result.labels.max() <= 1
    assert session.fresh


def test_scores_of_another_size_are_refused(session):
    scores = np.zeros((2, 5, 5), np.float32)
    session.choose_scores(ScoreSource("p", "p", ("no", "yes"), lambda: scores))
    with pytest.raises(ValueError, match=r"^scores: expected"):
        run(session, session.segment())
    assert session.result is None


def test_what_is_missing_is_named():
    session = Session(CRFSettings(parameters=CRFParameters()))
    with pytest.raises(ValueError, match=r"^image: expected"):
        session.segment()
    pixels = np.zeros((9, 9), np.uint8)
    session.choose_image(ImageSource("a", "a", (9, 9), lambda: pixels))
    with pytest.raises(ValueError, match=r"^model: expected"):
        session.segment()


def test_a_failed_load_leaves_the_old_model(session, model, tmp_path):
    path = tmp_path / "broken.safetensors"
    path.write_bytes(b"\x00" * 20)
    job = session.load_model(str(path))
    with pytest.raises(ValueError, match="broken"):
        run(session, job)
    assert session.model is model


def test_saved_models_load_again(session, model, tmp_path):
    path = tmp_path / "mine.safetensors"
    model.save(path)
    run(session, session.load_model(str(path)))
    assert session.model is not model
    assert session.model.class_names == model.class_names
    assert session.model_name == str(path)


def test_released_memory_is_nobodys(session, monkeypatch):
    run(session, session.segment())
    released = []
    monkeypatch.setattr("napari_deepcrf.device.release_memory", released.append)
    session.release()
    assert session.cache is None
    assert session.result is None
    assert not session.fresh
    assert released == [torch.device("cpu")]
