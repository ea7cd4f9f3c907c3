"""Other optimizers, schedules and networks; the published protocol is the default."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxnorm import Config, UserError
from jaxnorm.study.config import ADDED, NETWORK, completed, unusual
from jaxnorm.study.runs.provenance import config_differences
from jaxnorm.study.training.optimizer import Rule, learning_rate_in, make_optimizer
from jaxnorm.study.training.state import build_network

STEPS = 8
PARAMS = {"conv": {"kernel": jnp.array([[1.0, -2.0]]), "bias": jnp.array([0.5])}, "norm": {"gate": jnp.array([0.25])}}


def trained(rule):
    """Parameters after some steps of f = sum(p**2) / 2, whose gradient is p."""
    tx, params = make_optimizer(0.1, 1.0, 4, 2, (), rule), PARAMS
    state = tx.init(params)
    for _ in range(STEPS):
        updates, state = tx.update(params, state, params)
        params = optax.apply_updates(params, updates)
    return jax.tree.map(np.asarray, params)


def rates(schedule):
    """In float64: the rate of each step."""
    if schedule == "cosine":
        return [0.1 * (1 + math.cos(math.pi * step / STEPS)) / 2 for step in range(STEPS)]
    return [0.1, 0.1, 0.1, 0.1, 0.01, 0.01, 0.001, 0.001]


def by_hand(rule, p, decay):
    """The rules of the papers, in float64, for one number."""
    velocity = first = second = 0.0
    for step, rate in enumerate(rates(rule.schedule), 1):
        gradient = p + (0 if rule.optimizer == "adamw" else decay * p)
        if rule.optimizer == "adamw":
            first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
            corrected = first / (1 - 0.9**step) / (math.sqrt(second / (1 - 0.999**step)) + 1e-8)
            p -= rate * (corrected + decay * p)
        else:
            velocity = (rule.momentum if rule.optimizer == "momentum" else 0) * velocity + gradient
            p -= rate * velocity
    return p


@pytest.mark.parametrize("schedule", ["step", "cosine"])
@pytest.mark.parametrize("decay", [0.0, 0.05])
@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adamw"])
def test_a_rule_is_that_of_its_paper_and_only_kernels_decay(optimizer, decay, schedule):
    rule = Rule(optimizer, 0.8, decay, schedule)
    found = trained(rule)
    expected = [[by_hand(rule, p, decay) for p in (1.0, -2.0)]]
    np.testing.assert_allclose(found["conv"]["kernel"], expected, rtol=1e-4)
    np.testing.assert_allclose(found["conv"]["bias"], [by_hand(rule, 0.5, 0)], rtol=1e-4)
    np.testing.assert_allclose(found["norm"]["gate"], [by_hand(rule, 0.25, 0)], rtol=1e-4)


def test_the_rate_of_an_epoch_is_that_of_its_first_step():
    assert [learning_rate_in(epoch, 0.1, 4, "cosine") for epoch in (1, 2, 3, 4)] == pytest.approx(rates("cosine")[::2])
    assert learning_rate_in(1, 0.1, 4) == 0.1


def test_blocks_and_filters_are_those_of_the_configuration():
    model = build_network(Config(norm="gn", num_blocks=1, num_filters=8), 10)
    variables = model.init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)), train=False)
    assert {name for name in variables["params"] if name.startswith("stage1")} == {"stage1_block1"}
    assert variables["params"]["stage3_block1"]["conv2"]["kernel"].shape == (3, 3, 32, 32)


@pytest.mark.parametrize(
    "fields, words",
    [
        ({"momentum": 0.9}, "`momentum` needs `optimizer` momentum, but is 0.9 with sgd"),
        ({"momentum": 1.0, "optimizer": "momentum"}, "`momentum` must be from 0 to below 1, but is 1.0"),
        ({"momentum": float("nan"), "optimizer": "momentum"}, "`momentum` must .* but is nan"),
        ({"weight_decay": -1.0}, "`weight_decay` must .* but is -1.0"),
        ({"weight_decay": float("inf")}, "`weight_decay` must .* but is inf"),
        ({"num_blocks": 0}, "`num_blocks` must be at least 1, but is 0"),
        ({"num_filters": 0}, "`num_filters` must be at least 1, but is 0"),
        ({"probe_smoothness": 0}, "`probe_smoothness` must be at least 1, but is 0"),
    ],
)
def test_a_value_that_cannot_be_is_named(fields, words):
    with pytest.raises(UserError, match=words):
        Config(**fields)


def test_a_file_from_before_these_fields_has_the_published_protocol():
    config = Config(norm="gn", seed=3)
    old = {name: value for name, value in config.to_json().items() if name not in ADDED}
    assert config_differences(old, config) == {}
    assert completed(old) == config.to_json()
    assert unusual(old) == {}
    others = dict(num_blocks=3, num_filters=8, optimizer="momentum", momentum=0.5, weight_decay=0.1, schedule="cosine")
    others |= dict(model="mine", image_size=8, probe_learning_rate=True, probe_smoothness=20)
    assert set(others) == set(ADDED)
    for name, value in others.items():
        changed = {"optimizer": "momentum", name: value} if name == "momentum" else {name: value}
        assert name in config_differences(old, dataclasses.replace(config, **changed))
        assert (name in unusual({name: value})) == (name in NETWORK)
