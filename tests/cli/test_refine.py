"""`napari-deepcrf refine`: a CRF over probabilities from a file."""

import json
from pathlib import Path

import numpy as np
import pytest

import napari_deepcrf as ndc
from napari_deepcrf.data.image_files import read_image
from napari_deepcrf.data.label_files import read_labels


@pytest.fixture
def probabilities(tmp_path: Path) -> Path:
    path = tmp_path / "probabilities.npy"
    np.save(path, np.random.default_rng(1).dirichlet(np.ones(3), (23, 31)).transpose(2, 0, 1))
    return path


def test_same_as_from_python(command, photo: Path, probabilities: Path, tmp_path: Path):
    out = tmp_path / "out"
    options = ["--theta-alpha", 20, "--w-bilateral", 4, "--iterations", 2]
    result = command("refine", photo, probabilities, "--out", out, *options, "--json")
    assert (result.exit_code, result.err) == (0, "")
    params = ndc.CRFParameters(theta_alpha=20, w_bilateral=4)
    expected = ndc.refine(read_image(photo), np.load(probabilities), params, iterations=2)
    written = json.loads(result.out)
    np.testing.assert_array_equal(np.load(written["marginals"]), expected)
    np.testing.assert_array_equal(read_labels(written["labels"]), expected.argmax(0))


@pytest.mark.parametrize("option", ["--theta-gamma", "--theta-alpha", "--theta-beta"])
@pytest.mark.parametrize("width", [0, -1, "nan"])
def test_widths_must_be_positive(command, photo, probabilities, tmp_path, option, width):
    result = command("refine", photo, probabilities, "--out", tmp_path / "out", option, width)
    assert result.exit_code == 2
    assert option[2:].replace("-", "_") in result.err
    assert len(result.err.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_widths_beyond_the_lattice(command, photo, probabilities, tmp_path):
    result = command(
        "refine", photo, probabilities, "--out", tmp_path / "out", "--theta-gamma", 1e-9
    )
    assert result.exit_code == 2
    assert "width" in result.err
    assert len(result.err.strip().splitlines()) == 1


def test_shapes_must_belong_together(command, photo, tmp_path):
    path = tmp_path / "other.npy"
    np.save(path, np.ones((3, 23, 30)) / 3)
    result = command("refine", photo, path, "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert "(L, 23, 31)" in result.err


def test_what_is_there_is_replaced_on_demand_only(command, photo, probabilities, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "photo.png").write_bytes(b"theirs")
    result = command("refine", photo, probabilities, "--out", out)
    assert result.exit_code == 2
    assert (
        result.err == f"error: out: {out / 'photo.png'} is there already; --overwrite replaces it\n"
    )
    assert [path.name for path in out.iterdir()] == ["photo.png"]
    assert (out / "photo.png").read_bytes() == b"theirs"
    assert command("refine", photo, probabilities, "--out", out, "--overwrite").exit_code == 0
    assert read_labels(out / "photo.png").shape == (23, 31)


@pytest.mark.parametrize("options", [[], ["--overwrite"]])
def test_the_probabilities_are_never_overwritten(command, photo, tmp_path, options):
    path = tmp_path / "photo.npy"
    np.save(path, np.full((2, 23, 31), 0.5))
    before = path.read_bytes()
    result = command("refine", photo, path, "--out", tmp_path, *options)
    assert result.exit_code == 2
    assert "would overwrite" in result.err
    assert path.read_bytes() == before
