"""The Train tab's buttons besides Train: stop what is held, save, open the folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from napari_deepcrf.plugin import annotating, folders
from napari_deepcrf.training import config


@pytest.fixture
def app(open_app, photo, monkeypatch, tmp_path):
    monkeypatch.setattr(annotating, "AUTOSAVE_FOLDER", tmp_path / "scribbles")
    return open_app(photo)


@pytest.mark.parametrize("after_s", [0.0, 0.2], ids=["about to be held", "held"])
def test_stop_ends_a_training_that_is_held(app, wait_until, settle, monkeypatch, after_s):
    recipe = config.named_config("scribbles")
    crops = replace(recipe.unary.augmentation, crop=33)
    small = replace(recipe.unary, batch_size=2, augmentation=crops)
    monkeypatch.setitem(config._CONFIGS, "scribbles", replace(recipe, unary=small))
    panel = app.dock.train_panel
    app.dock.annotate()
    app.dock.annotating.layer.data[2:8, 5:70] = 1
    app.dock.annotating.layer.data[26:36, 30:52] = 3
    app.dock.train()
    wait_until(lambda: panel.steps())
    for _ in range(2):  # held, and let go before the present step has ended
        panel.pause.click()
    seen = len(panel.steps())
    wait_until(lambda: len(panel.steps()) > seen)
    panel.pause.click()
    settle(after_s)
    panel.stop.click()
    wait_until(lambda: app.dock.learning.on_trial)
    app.idle()
    assert panel.pause.text() == "Pause"
    assert "Stopped early" in panel.verdict.text()
    panel.train.click()
    wait_until(lambda: panel.steps())
    assert panel.verdict.isHidden()
    app.dock.status_panel.cancel.click()
    app.idle()
    assert "Stopped early" in panel.verdict.text()  # the one before it is on trial as it was
    panel.revert.click()
    app.idle()
    assert panel.progress.text() == "Reverted."


def test_a_model_is_saved_under_the_name_that_was_confirmed(app, tmp_path, monkeypatch):
    opened: list[Path] = []
    monkeypatch.setattr(folders, "open_folder", opened.append)
    there = tmp_path / "mine.safetensors"
    there.write_bytes(b"kept")
    for name, written in (("mine", None), ("cats.v2", "cats.v2.safetensors")):
        monkeypatch.setattr(folders, "ask_where_to_save_model", lambda _, n=name: str(tmp_path / n))
        app.dock.train_panel.save.click()
        app.idle()
        if written is None:
            assert "mine.safetensors, which is there" in app.dock.status_panel.text.text()
        else:
            assert (tmp_path / written).is_file()
    assert there.read_bytes() == b"kept"
    app.dock.session.choose_model("tiny (trained)", app.dock.session.model)
    app.dock.train_panel.folder.click()
    assert opened == [tmp_path]
