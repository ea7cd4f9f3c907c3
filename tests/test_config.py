import dataclasses

import pytest

from jaxnorm.config import DEFAULT_NORMS, PRESETS, Config, Recipe, nearest
from jaxnorm.errors import UserError


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
    assert Config(**config.to_json()) == config


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
    ],
)
def test_what_a_recipe_cannot_hold(field, value, words):
    with pytest.raises(UserError, match=words):
        dataclasses.replace(Recipe(), **{field: value}).validate()


def test_nearest_puts_likely_names_first():
    assert nearest("bm", DEFAULT_NORMS).startswith("did you mean 'bn'")
    assert nearest("xyz", ["quick", "short"]) == "valid: quick, short"
