"""Threads in which libraries are loaded."""

from __future__ import annotations

import sys
import threading

import pytest

from napari_deepcrf.plugin import loading


def test_what_is_loaded_has_a_thread_to_itself():
    threads = []
    loading._in_a_thread_that_ends(lambda: threads.append(threading.current_thread()))
    assert threads[0] is not threading.current_thread()
    assert not threads[0].is_alive()


def test_pytorch_is_first_imported_that_way(monkeypatch):
    """Before whatever would import it in the job's thread, which is used again."""
    loaded = []
    monkeypatch.setattr(loading, "_in_a_thread_that_ends", loaded.append)
    monkeypatch.setitem(sys.modules, "napari_deepcrf.session", None)
    with pytest.raises(ImportError):
        list(loading.warm_up())
    assert loaded == [loading._import_torch]
