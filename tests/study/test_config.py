import dataclasses
import json

import pytest

from jaxnorm.errors import UserError
from jaxnorm.study.config import DEFAULT_NORMS, PRESETS, Config, Recipe, nearest


def test_presets_hold_fields_of_a_recipe_and_are_valid():
    for preset in PRESETS.values():
        recipe = {name: value for name, value in preset.items() if name != "seeds"}
        Recipe(**recipe).validate()
    assert PRESETS["study"] == dict(dataset="cifar10", batch_size=128, num_epochs=100, seeds=(0, 1, 2, 3, 4))


def test_a_configuration_is_frozen_hashable_and_names_its_run():
    config = Config(norm="bn", seed=3)
    assert config.name == "bn-seed3"
    assert config == Config(norm="bn", seed=3)
    assert len({config, Config(norm="bn", seed=3)}) == 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.seed = 4


def test_to_json_gives_back_the_configuration():
    config = Config(norm="gn", seed=1, stop_after_epoch=2)
    again = config.to_json()
    assert again == json.loads(json.dumps(again))
    assert Config(**{**again, "quantiles": tuple(again["quantiles"]), "tags": tuple(again["tags"])}) == config


@pytest.mark.parametrize("stop, last", [(None, 12), (5, 5), (12, 12)])
def test_last_epoch(stop, last):
    assert Recipe(stop_after_epoch=stop).last_epoch == last


@pytest.mark.parametrize(
    "field, value, words",
    [
        ("batch_size", 0, "batch_size must be at least 1, but is 0"),
        ("batch_size", -3, "--batch-size"),
        ("num_epochs", 0, "num_epochs must be at least 1"),
        ("stop_after_epoch", 0, "stop_after_epoch must be at least 1"),
        ("stop_after_epoch", 13, "schedule of 12 epochs, but is 13"),
        ("learning_rate", 0.0, "positive finite"),
        ("learning_rate", float("nan"), "but is nan"),
        ("learning_rate", float("inf"), "but is inf"),
        ("gate_lr_multiplier", -1.0, "but is -1.0"),
        ("gate_lr_multiplier", float("inf"), "but is inf"),
        ("ghost_batch_size", 0, "ghost_batch_size must be at least 1"),
        ("ghost_batch_size", 5, "must divide the batch size 32, but is 5"),
        ("quantiles", (), "at least one"),
        ("quantiles", (1.0, 101.0), r"0..100 percent, but hold 101.0"),
        ("quantiles", (-1.0,), "but hold -1.0"),
        ("quantiles", (20.0, 1.0), "must ascend"),
        ("quantiles", (20.0, 20.0), "each once"),
    ],
)
def test_what_a_recipe_cannot_hold(field, value, words):
    with pytest.raises(UserError, match=words):
        dataclasses.replace(Recipe(), **{field: value}).validate()


def test_the_linear_rule_scales_the_rate_with_the_batch():
    assert Recipe(batch_size=8).peak_learning_rate == 0.1
    assert Recipe(batch_size=8, lr_rule="linear").peak_learning_rate == pytest.approx(0.1 * 8 / 128)
    assert Recipe(batch_size=128, lr_rule="linear").peak_learning_rate == 0.1


def test_tags_stand_in_a_runs_name():
    assert Config(norm="bn", tags=("bs8", "linear"), seed=1).name == "bn-bs8-linear-seed1"


def test_nearest_puts_likely_names_first():
    assert nearest("bm", DEFAULT_NORMS).startswith("did you mean 'bn'")
    assert nearest("xyz", ["quick", "short"]) == "valid: quick, short"
