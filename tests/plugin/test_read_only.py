"""A home folder that nothing can be written to: strokes stay, and are saved once it can be."""

from __future__ import annotations

import numpy as np
import pytest

from napari_deepcrf.plugin import annotating


@pytest.fixture
def home(monkeypatch, tmp_path):
    """A file where the folder's parent should be, as no right to write stops root."""
    home = tmp_path / "home"
    home.touch()
    monkeypatch.setattr(annotating, "AUTOSAVE_FOLDER", home / "scribbles")
    monkeypatch.setattr(annotating, "SAVE_AFTER_MS", 20)
    return home


def test_strokes_that_cannot_be_saved_are_told_and_kept(home, open_app, photo):
    app = open_app(photo)
    app.dock.annotate()
    app.idle()
    layer = app.dock.annotating.layer
    layer.selected_label = 2
    layer.paint((20, 30), 2)
    painted = layer.data.copy()
    assert painted.any()
    app.idle()
    assert str(home) in app.dock.status_panel.text.text()
    np.testing.assert_array_equal(layer.data, painted)

    home.unlink()
    layer.paint((40, 50), 1)
    app.idle()
    (path,) = annotating.AUTOSAVE_FOLDER.glob("*.npz")
    with np.load(path) as file:
        np.testing.assert_array_equal(file["scribbles"], layer.data)
    assert set(np.unique(layer.data)) == {0, 1, 2}
