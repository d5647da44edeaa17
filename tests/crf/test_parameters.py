"""The nine numbers: plain floats, validated, without torch."""

import json
import subprocess
import sys

import numpy as np
import pytest

from napari_deepcrf.crf import CRFParameters, KernelParameters


def test_round_trip_through_json():
    params = CRFParameters(theta_gamma=(2, 3), theta_beta=(1.5, 2, 4), w_spatial=0.25)
    assert CRFParameters.from_dict(json.loads(json.dumps(params.to_dict()))) == params


def test_numbers_become_plain_floats():
    params = CRFParameters(w_spatial=np.float32(2), theta_beta=[1, 2, 3])
    assert type(params.w_spatial) is float
    assert params.theta_beta == (1.0, 2.0, 3.0)


@pytest.mark.parametrize(
    "name", ["w_spatial", "w_bilateral", "theta_gamma", "theta_alpha", "theta_beta"]
)
@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf")])
def test_numbers_must_be_positive_and_finite(name, value):
    with pytest.raises(ValueError, match=f"{name}: expected a positive, finite number"):
        CRFParameters(**{name: value})


@pytest.mark.parametrize("value", ["3", None, True, 1j])
def test_other_types_are_refused(value):
    with pytest.raises(TypeError, match="w_spatial: expected a number"):
        CRFParameters(w_spatial=value)
    with pytest.raises(TypeError, match="theta_beta: expected a number"):
        CRFParameters(theta_beta=value)


def test_empty_and_unknown_are_refused():
    with pytest.raises(ValueError, match="theta_beta: expected at least one number"):
        CRFParameters(theta_beta=())
    with pytest.raises(ValueError, match="unknown name 'theta'"):
        CRFParameters.from_dict({"theta": 3})


def test_further_kernels_are_validated():
    assert KernelParameters(weight=1, theta_position=2).theta_colour is None
    with pytest.raises(ValueError, match="theta_colour: expected a positive"):
        KernelParameters(weight=1, theta_position=2, theta_colour=0)
    with pytest.raises(TypeError, match="theta_position: expected a number"):
        KernelParameters(weight=1, theta_position=None)


def test_parameters_need_no_torch():
    code = (
        "import sys; from napari_deepcrf import CRFParameters; CRFParameters();"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
