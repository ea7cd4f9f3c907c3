import dataclasses
import json

import numpy as np
import pytest

from jaxnorm.errors import UserError
from jaxnorm.study.config import DEFAULT_NORMS, GHOST_BATCH_NORMS, PRESETS, Config, Recipe, nearest


def test_presets_hold_fields_of_a_recipe_and_are_valid():
    for preset in PRESETS.values():
        Config(**{name: value for name, value in preset.items() if name != "seeds"})
    assert PRESETS["study"] == dict(dataset="cifar10", batch_size=128, num_epochs=100, seeds=tuple(range(10)))


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
    "field, value",
    [
        ("batch_size", 0),
        ("batch_size", -3),
        ("num_epochs", 0),
        ("stop_after_epoch", 0),
        ("stop_after_epoch", 13),
        ("learning_rate", 0.0),
        ("learning_rate", float("nan")),
        ("learning_rate", float("inf")),
        ("gate_lr_multiplier", -1.0),
        ("gate_lr_multiplier", float("inf")),
        ("ghost_batch_size", 0),
        ("ghost_batch_size", 5),
        ("quantiles", 101.0),
        ("quantiles", -1.0),
        ("num_replicas", 2),
    ],
)
def test_a_value_that_a_run_cannot_have_is_named_with_its_field(field, value):
    held = (value,) if field == "quantiles" else value
    with pytest.raises(UserError, match=f"^`{field}` .*(but|one) is {value}.*; "):
        Config(**{field: held})
    with pytest.raises(UserError):
        dataclasses.replace(Config(), **{field: held})


@pytest.mark.parametrize("quantiles", [(), (20.0, 1.0), (20.0, 20.0)])
def test_quantiles_ascend_and_are_at_least_one(quantiles):
    with pytest.raises(UserError, match="^`quantiles` must "):
        Config(quantiles=quantiles)


@pytest.mark.parametrize(
    "changes, named",
    [
        ({"num_replicas": 1}, "num_replicas"),
        ({"num_replicas": 5}, "num_replicas"),
        ({"num_replicas": 2, "ghost_batch_size": 8}, "`ghost_batch_size` is 8 and `num_replicas` 2"),
    ],
)
def test_replicas_divide_the_batch_and_exclude_ghost_batches(changes, named):
    with pytest.raises(UserError, match=named):
        Config(bn_statistics="replica", **changes)
    Config(bn_statistics="replica", num_replicas=4)


def test_ghost_batches_need_a_norm_that_takes_them():
    for norm in (*DEFAULT_NORMS, "bin_frozen"):
        if norm in GHOST_BATCH_NORMS:
            Config(norm=norm, ghost_batch_size=8)
            continue
        with pytest.raises(UserError, match=f"the norm is {norm}; "):
            Config(norm=norm, ghost_batch_size=8)


def test_the_linear_rule_scales_the_rate_with_the_batch():
    assert Recipe(batch_size=8).peak_learning_rate == 0.1
    assert Recipe(batch_size=8, lr_rule="linear").peak_learning_rate == pytest.approx(0.1 * 8 / 128)
    assert Recipe(batch_size=128, lr_rule="linear").peak_learning_rate == 0.1


def test_a_runs_name_has_norm_tags_and_seed():
    assert Config(norm="bn", tags=("bs8", "linear"), seed=1).name == "bn-bs8-linear-seed1"


def test_nearest_puts_likely_names_first():
    assert nearest("bm", DEFAULT_NORMS).startswith("did you mean 'bn'")
    assert nearest("xyz", ["quick", "short"]) == "valid: quick, short"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"num_epochs": 1.5}, "`num_epochs` must be a whole number, but is 1.5"),
        ({"seed": "a"}, "`seed` must be a whole number, but is 'a'"),
        ({"seed": True}, "`seed` must be a whole number, but is True"),
        ({"learning_rate": "0.1"}, "`learning_rate` must be a number, but is '0.1'"),
        ({"momentum": None, "batch_size": None}, "`batch_size` must be a whole number, but is None"),
        ({"optimizer": "adam"}, "`optimizer` must be one of sgd, momentum, adamw, but is 'adam'"),
        ({"norm": 3}, "`norm` must be a text, but is 3"),
        ({"tags": "bs8"}, "`tags` must be a tuple of texts, but is 'bs8'"),
        ({"quantiles": ("a",)}, "`quantiles` must be a tuple of numbers"),
        ({"evaluate_statistics": 1}, "`evaluate_statistics` must be a True or False, but is 1"),
    ],
)
def test_a_value_of_another_type_is_named(fields, words):
    with pytest.raises(UserError, match=words):
        Config(**fields)


def test_numbers_of_numpy_become_python_s():
    config = Config(seed=np.int64(3), learning_rate=np.float32(0.5), num_replicas=None, num_epochs=np.array(4))
    assert json.loads(json.dumps(config.to_json()))["seed"] == 3
    assert (type(config.seed), type(config.learning_rate), type(config.num_epochs)) == (int, float, int)
    assert config == Config(seed=3, learning_rate=0.5, num_epochs=4)
