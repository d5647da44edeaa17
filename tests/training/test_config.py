"""The named recipes and what a bad setting gets."""

import json
from dataclasses import replace

import pytest

from napari_deepcrf.training.config import JointStage, UnaryStage, named_config


def test_paper_is_the_paper():
    paper = named_config("paper")
    stage = paper.unary
    assert (stage.optimizer, stage.momentum, stage.weight_decay) == ("sgd", 0.9, 0.0005)
    assert (stage.learning_rate, stage.top_learning_rate, stage.batch_size) == (0.001, 0.01, 20)
    assert (stage.copy_size, stage.augmentation.crop, stage.iterations) == (306, 306, 4000)
    assert paper.network.width == 1.0
    assert (paper.network.head, paper.network.input_size) == ("7x7", 306)
    assert paper.joint.iterations == 20
    assert paper.joint.copy_size is None


@pytest.mark.parametrize("name", ["paper", "compact", "scribbles"])
def test_recipes_are_json(name):
    assert json.loads(json.dumps(named_config(name).to_dict()))["name"] == name


def test_unknown_recipe_is_refused():
    with pytest.raises(ValueError, match="expected one of paper, compact, scribbles, got 'fast'"):
        named_config("fast")


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("iterations", 0),
        ("learning_rate", -1.0),
        ("average", 1.0),
        ("distillation", 1.5),
        ("micro_batch", 0),
        ("workers", -1),
        ("precision", "double"),
        ("optimizer", "adam"),
    ],
)
def test_bad_settings_are_named(setting, value):
    with pytest.raises(ValueError, match=rf"^{setting}: expected .*, got '?{value}"):
        UnaryStage(**{setting: value})


@pytest.mark.parametrize("setting", ["crf_learning_rate", "measured_train"])
def test_bad_settings_of_the_joint_stage_are_named(setting):
    with pytest.raises(ValueError, match=rf"^{setting}: expected at least 0, got -1"):
        JointStage(**{setting: -1})
    JointStage(**{setting: 0})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"unary": None, "joint": None}, "config: expected at least one stage, got none"),
        ({"reported": 0}, "reported: expected at least 1, got 0"),
    ],
)
def test_a_recipe_that_does_nothing_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(named_config("paper"), **changes)


@pytest.mark.parametrize("stage", ["unary", "joint"])
def test_patches_leave_a_stage_that_is_not_there_alone(stage):
    recipe = replace(named_config("paper"), **{stage: None}).on_patches(64)
    assert getattr(recipe, stage) is None
    assert recipe.patch_size == 64


def test_patches_change_every_scale_of_a_recipe():
    recipe = named_config("paper").on_patches(400)
    assert (recipe.unary.copy_size, recipe.joint.copy_size, recipe.network.input_size) == (
        None,
    ) * 3
    assert (recipe.unary.augmentation.crop, recipe.patch_size) == (400, 400)
    assert named_config("compact").on_patches().patch_size == 306
    with pytest.raises(ValueError, match="patch_size: expected stages and network at native scale"):
        replace(named_config("paper"), patch_size=400)
    with pytest.raises(ValueError, match="size: expected at least 8 pixels, got 4"):
        named_config("paper").on_patches(4)


def test_rates_rise_stay_and_fall():
    stage = JointStage(iterations=10, warmup=2, decay=4)
    factors = [stage.rate_factor(step) for step in range(10)]
    assert factors == [0.5, 1, 1, 1, 1, 1, 1, 0.75, 0.5, 0.25]
