"""A monkey at the dock: it loses no scribble, and nothing out of date is shown as fresh."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest

from napari_deepcrf.models import DeepCRF
from napari_deepcrf.plugin import annotating
from napari_deepcrf.training import config


class Monkey:
    """Does one random thing after another, remembering what was painted."""

    def __init__(self, app, seed, models):
        self.app, self.dock, self.models = app, app.dock, models
        self.random = random.Random(seed)
        self.image = app.viewer.layers["photo"]
        self.begun = set()
        self.dock.runner.started.connect(lambda job: self.begun.add(job.kind))
        self.dock.annotate()
        self.scribbles = self.dock.annotating.layer
        self.painted = self.scribbles.data.copy()
        often = [
            self.slide, self.slide, self.updates, self.step, self.segment, self.cancel,
            self.rename, self.hide, self.paint, self.undo, self.redo, self.tab, self.drop,
            self.swap, self.live, self.learned, self.quality, self.split, self.pick,
        ]  # fmt: skip
        seldom = [
            self.train, self.pause, self.stop, self.settle, self.load, self.tiles, self.planes,
            self.keep, self.objects,
        ]  # fmt: skip
        self.actions = 3 * often + seldom

    def act(self):
        self.random.choice(self.actions)()

    def slide(self):
        sliders = self.dock.crf_panel.sliders
        name = self.random.choice(list(sliders))
        self.random.choice(sliders[name]).slider.setValue(self.random.randrange(300, 900))

    def updates(self):
        self.dock.crf_panel.iterations.setValue(self.random.randrange(1, 7))

    def step(self):
        dims = self.app.viewer.dims
        axis = self.random.randrange(dims.ndim)
        dims.set_current_step(axis, self.random.randrange(int(dims.nsteps[axis])))

    def segment(self):
        self.dock.source_panel.segment.click()

    def cancel(self):
        self.dock.status_panel.cancel.click()

    def rename(self):
        self.image.name = f"photo {self.random.randrange(9)}"

    def hide(self):
        layer = self.random.choice(list(self.app.viewer.layers))
        layer.visible = not layer.visible

    def paint(self):
        size = self.scribbles.data.shape
        place = tuple(self.random.randrange(n) for n in size)
        self.scribbles.paint(place, self.random.choice((1, 3)))
        self.painted = self.scribbles.data.copy()

    def undo(self):
        self.scribbles.undo()
        self.painted = self.scribbles.data.copy()

    def redo(self):
        self.scribbles.redo()
        self.painted = self.scribbles.data.copy()

    def tab(self):
        self.dock.tabs.setCurrentIndex(self.random.randrange(5))

    def drop(self):
        ours = [x for x in self.app.viewer.layers if x in self.dock.result_layers]
        if ours:
            self.app.viewer.layers.remove(self.random.choice(ours))

    def swap(self):
        self.image.data = np.roll(self.image.data, self.random.randrange(9), axis=-2)

    def live(self):
        box = self.dock.annotate_panel.live
        box.setChecked(not box.isChecked())

    def learned(self):
        self.dock.crf_panel.learned.click()

    def quality(self):
        self.dock.segmenting.change({"quality": self.random.choice(("fast", "accurate"))})

    def split(self):
        box = self.dock.crf_panel.independent
        box.setChecked(not box.isChecked())

    def pick(self):
        self.dock.annotating.pick(self.random.randrange(4))

    def train(self):
        self.dock.train()

    def pause(self):
        self.dock.training.pause()

    def stop(self):
        self.dock.training.stop()

    def settle(self):
        self.dock.training.settle(keep=self.random.random() < 0.5)

    def load(self):
        self.dock.model_choice.load(self.random.choice(self.models))

    def tiles(self):
        self.dock.tiling.segment()

    def planes(self):
        self.dock.batching.segment_stack()

    def keep(self):
        box = self.dock.source_panel.keep
        box.setCurrentIndex(self.random.randrange(box.count()))
        box.activated.emit(box.currentIndex())

    def objects(self):
        self.dock.tools.make_objects(self.random.randrange(4), 5)

    def check(self):
        """What must hold at any time."""
        np.testing.assert_array_equal(self.scribbles.data, self.painted)
        session = self.dock.session
        result = session.result
        assert session.fresh == (result is not None and result.identity == session.identity)
        if not session.fresh and not self.dock.segmenting.is_waiting:  # for layers to be shown
            assert "up to date" not in self.dock.status_panel.badge.text()
            roles = ("unary", "marginals", "uncertainty", "labels", "history")
            shown = [layer for role in roles if (layer := self.dock.result_layers.get(role))]
            assert all(layer.name.endswith("(out of date)") for layer in shown)


@pytest.fixture
def models(model_file, tmp_path):
    """The model of the tests, and one with other weights."""
    other = DeepCRF.load(str(model_file))
    for parameter in other.network.parameters():
        parameter.data *= 0.9
    other.save(tmp_path / "other.safetensors")
    return [str(model_file), str(tmp_path / "other.safetensors")]


@pytest.fixture(autouse=True)
def short_and_apart(monkeypatch, tmp_path):
    """Trainings of a few small steps; nothing is written into the user's home."""
    recipe = config.named_config("scribbles")
    crops = replace(recipe.unary.augmentation, crop=33)
    short = replace(
        recipe,
        unary=replace(recipe.unary, iterations=2, batch_size=2, augmentation=crops),
        joint=replace(recipe.joint, iterations=1),
    )
    monkeypatch.setitem(config._CONFIGS, "scribbles", short)
    monkeypatch.setattr(annotating, "AUTOSAVE_FOLDER", tmp_path / "scribbles")


def let_go(app, seed, models, settle, actions):
    monkey = Monkey(app, seed, models)
    app.idle()
    for _ in range(actions):
        monkey.act()
        monkey.check()
        settle(0.002)
    app.dock.status_panel.cancel.click()  # a training may be held
    app.idle()
    monkey.check()
    assert monkey.begun >= {"segment", "refine", "live", "train", "model"}
    session = app.dock.session
    for layer in app.viewer.layers:
        if layer in app.dock.result_layers:
            assert layer.name.endswith("(out of date)") != session.fresh
    app.dock.annotate_panel.live.setChecked(False)
    final = app.segment()
    assert session.fresh
    np.testing.assert_array_equal(np.squeeze(app.layer("labels").data), final.labels)


def test_a_monkey_breaks_nothing(open_app, photo, settle, models):
    let_go(open_app(photo), 2015, models, settle, 500)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_a_patient_monkey_breaks_nothing_of_a_stack_either(open_app, photo, settle, models, seed):
    image = photo if seed % 2 else photo[..., 0][None].repeat(3, 0)
    let_go(open_app(image, rgb=bool(seed % 2)), seed, models, settle, 1500)
