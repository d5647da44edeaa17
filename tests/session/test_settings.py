import pytest

from napari_deepcrf.crf import CRFParameters
from napari_deepcrf.session import CRFSettings

SETTINGS = CRFSettings(parameters=CRFParameters())


def test_changes_reach_settings_and_kernel_parameters():
    changed = SETTINGS.with_(iterations=7, theta_alpha=(20.0, 30.0))
    assert changed.iterations == 7
    assert changed.parameters.theta_alpha == (20.0, 30.0)
    assert changed.parameters.theta_beta == SETTINGS.parameters.theta_beta


def test_equal_settings_are_equal_and_hashable():
    assert len({SETTINGS, SETTINGS.with_(), SETTINGS.with_(theta_gamma=4.0)}) == 2


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"iterations": 0}, "iterations"),
        ({"iterations": 51}, "iterations"),
        ({"quality": "best"}, "quality"),
        ({"inference": "sequential"}, "inference"),
        ({"theta_beta": 0.0}, "theta_beta"),
        ({"w_spatial": float("nan")}, "w_spatial"),
    ],
)
def test_bad_values_are_named(changes, name):
    with pytest.raises(ValueError, match=rf"^{name}: expected"):
        SETTINGS.with_(**changes)
