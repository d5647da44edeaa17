import numpy as np
import pytest

from napari_deepcrf.session import ImageSource
from napari_deepcrf.session.events import RegionReady
from napari_deepcrf.session.region import Region, reduced, visible_region


def run(session, job):
    return [event for event in job.steps() if session.receive(job, event)]


@pytest.fixture
def segmented(session):
    run(session, session.segment())
    return session


def test_a_region_at_full_resolution_is_a_cut_of_the_image(segmented, image):
    parts = []
    segmented.region_ready.connect(parts.append)
    segmented.change_settings(theta_alpha=9.0, w_bilateral=4.0)
    region = Region(top=4, bottom=33, left=10, right=51, step=1)
    run(segmented, segmented.refine_region(region))
    (part,) = parts
    assert part.labels.shape == (29, 41)
    assert part.region == region
    assert not segmented.fresh
    run(segmented, segmented.refine())
    whole = segmented.result.labels[4:33, 10:51]
    assert (part.labels == whole).mean() > 0.8  # what lies outside has its influence


def test_the_whole_image_as_a_region_is_the_whole_result(segmented, image):
    segmented.change_settings(theta_alpha=9.0)
    (event,) = run(segmented, segmented.refine_region(Region(0, 41, 0, 53, step=1)))
    run(segmented, segmented.refine())
    np.testing.assert_array_equal(event.labels, segmented.result.labels)


def test_a_part_is_cut_once_and_late_ones_are_dropped(segmented):
    region = Region(0, 40, 0, 52, step=2)
    run(segmented, segmented.refine_region(region))
    _, cut = segmented.cache.reduced
    assert cut.scores.shape == (3, 20, 26)
    np.testing.assert_allclose(
        cut.scores[1, 3, 5], segmented.cache.scores[1, 6:8, 10:12].mean(), rtol=1e-5
    )
    segmented.change_settings(w_spatial=2.0)
    job = segmented.refine_region(region)
    events = list(job.steps())
    assert segmented.cache.reduced[1] is cut
    assert isinstance(events[0], RegionReady)
    segmented.choose_image(ImageSource("b", "b", (41, 53), lambda: None))
    assert not any(segmented.receive(job, event) for event in events)


def test_widths_shrink_with_the_resolution(session):
    settings = session.settings.with_(theta_gamma=0.5, theta_alpha=(40.0, 20.0))
    small = reduced(settings, 4).parameters
    assert small.theta_alpha == (10.0, 5.0)
    assert small.theta_gamma == 0.3
    assert small.theta_beta == settings.parameters.theta_beta


def test_what_is_visible_of_an_image():
    def seen(*args, **kwargs):
        return visible_region(*args, **{"most": 10**6, **kwargs})

    assert seen((-30.0, 5.2), (99.0, 40.0), (80, 60), 1.0) == Region(0, 80, 5, 41, 1)
    assert seen((0, 0), (3999, 2999), (4000, 3000), 3.7) == Region(0, 4000, 0, 3000, 4)
    coarse = seen((0, 0), (3999, 2999), (4000, 3000), 1.0)
    assert np.prod(coarse.shape) <= 10**6
    assert seen((500, 500), (600, 600), (80, 60), 1.0) is None
