"""Compiled kernels are kept for the very sources they were compiled from."""

from __future__ import annotations

import pickle

import numba
import pytest

from napari_deepcrf.lattice import numba_cache


def test_the_first_call_discards_what_other_sources_left(tmp_path):
    left = ["numba_rows.sum_rows-9.py311.nbi", "numba_rows.sum_rows-9.py311.1.nbc"]
    kept = ["numba_rows.cpython-311.pyc", "other.f-1.py311.nbi"]
    for name in [*left, *kept, "napari-deepcrf-0123456789abcdef"]:
        (tmp_path / name).touch()
    numba_cache.discard_outdated(tmp_path)
    (marker,) = tmp_path.glob("napari-deepcrf-*")
    assert marker.name != "napari-deepcrf-0123456789abcdef"
    assert {path.name for path in tmp_path.iterdir()} == {*kept, marker.name}

    (tmp_path / left[0]).touch()
    numba_cache.discard_outdated(tmp_path)
    assert (tmp_path / left[0]).exists()


def test_an_index_of_types_that_are_gone_is_no_obstacle(tmp_path, monkeypatch):
    """As an upgrade may leave it; Numba unpickles an index before it looks at its age."""
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    numba_cache.provide_cache()
    (marker,) = tmp_path.rglob("napari-deepcrf-*")
    kernel = numba.njit(cache=True)(numba_cache._nothing)
    kernel()
    (index,) = marker.parent.glob("numba_cache.*.nbi")
    gone = b"cnapari_deepcrf.lattice.numba_cache\nGone\n."
    index.write_bytes(pickle.dumps(numba.__version__) + gone)
    with pytest.raises(AttributeError, match="Gone"):
        numba.njit(cache=True)(numba_cache._nothing)()

    marker.rename(marker.with_name("napari-deepcrf-0123456789abcdef"))
    numba_cache.provide_cache()
    assert not index.exists()
    numba.njit(cache=True)(numba_cache._nothing)()
    assert index.exists()
