import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxnorm import UserError
from jaxnorm.study.param_groups import ParamGroup, checked, project
from jaxnorm.study.training.optimizer import (
    learning_rate_in,
    make_optimizer,
    schedule_epochs,
    stepped_schedule,
)


@pytest.mark.parametrize(
    "num_epochs, epochs", [(100, (75, 95)), (10, (8, 10)), (12, (9, 12)), (4, (3, 4)), (5, (4, 5))]
)
def test_the_rate_falls_at_the_studys_epochs(num_epochs, epochs):
    assert schedule_epochs(num_epochs) == epochs
    rates = [learning_rate_in(epoch, 0.1, num_epochs) for epoch in range(1, num_epochs + 1)]
    first, second = epochs
    np.testing.assert_allclose(rates[: first - 1], 0.1)
    np.testing.assert_allclose(rates[first - 1 : second - 1], 0.01)
    np.testing.assert_allclose(rates[second - 1 :], 0.001)


@pytest.mark.parametrize("num_epochs", [1, 2, 3])
def test_a_schedule_of_less_than_four_epochs_never_falls(num_epochs):
    assert {learning_rate_in(epoch, 0.1, num_epochs) for epoch in range(1, num_epochs + 1)} == {0.1}


def test_the_rate_by_step_is_the_rate_of_the_steps_epoch():
    rate = jax.jit(stepped_schedule(0.1, num_epochs=8, steps_per_epoch=5))
    for step in range(40):
        assert float(rate(step)) == pytest.approx(learning_rate_in(step // 5 + 1, 0.1, 8))
    assert float(rate(40)) == pytest.approx(0.001), "past the end the last rate stays"


def test_an_update_is_plain_sgd_and_ten_times_that_for_a_gate():
    tx = make_optimizer(0.1, 10.0, 100, 10)
    params = {"norm1": {"gate": jnp.ones(2), "scale": jnp.ones(2)}}
    gradients = jax.tree.map(lambda leaf: 0.2 * jnp.ones_like(leaf), params)
    state = tx.init(params)
    for _ in range(2):  # momentum would show in the second step
        updates, state = tx.update(gradients, state, params)
        np.testing.assert_allclose(updates["norm1"]["scale"], -0.02)
        np.testing.assert_allclose(updates["norm1"]["gate"], -0.2)
    late = optax.tree_utils.tree_set(state, count=jnp.asarray(74 * 10))
    updates, _ = tx.update(gradients, late, params)
    np.testing.assert_allclose(updates["norm1"]["gate"], -0.02, rtol=1e-6)


def test_only_gates_are_projected():
    params = {"gate": jnp.array([-1.0, 0.25, 2.0]), "scale": jnp.array([-1.0, 2.0])}
    projected = project(params)
    np.testing.assert_array_equal(projected["gate"], [0.0, 0.25, 1.0])
    np.testing.assert_array_equal(projected["scale"], [-1.0, 2.0])


def test_equal_settings_share_one_optimiser_so_that_nothing_is_compiled_twice():
    assert make_optimizer(0.1, 10.0, 4, 5) is make_optimizer(0.1, 10.0, 4, 5)


def test_a_group_has_a_rate_bounds_decay_and_clipping_of_its_own():
    groups = checked(
        {
            "*/alpha": ParamGroup(learning_rate=5.0, bounds=(-1.0, 1.0)),
            "*conv*/kernel": ParamGroup(clipping=0.01),
            "*/kernel": ParamGroup(weight_decay=0.5),
        }
    )
    params = {
        "norm1": {"alpha": jnp.asarray([0.9]), "gate": jnp.asarray([0.9])},
        "conv1": {"kernel": jnp.full((3, 3, 2, 4), 2.0)},
        "head": {"kernel": jnp.full((4, 2), 2.0)},
    }
    gradients = jax.tree.map(lambda leaf: -jnp.ones_like(leaf), params)
    tx = make_optimizer(0.1, 10.0, 100, 10, groups)
    updates, _ = tx.update(gradients, tx.init(params), params)
    np.testing.assert_allclose(updates["norm1"]["alpha"], 0.5)
    np.testing.assert_allclose(updates["norm1"]["gate"], 1.0)
    # The norm of 18 twos is twice that of as many ones: each gradient shrinks to 2 % of its length.
    np.testing.assert_allclose(updates["conv1"]["kernel"], 0.1 * 0.02, rtol=1e-6)
    np.testing.assert_allclose(updates["head"]["kernel"], 0.1 * (1 - 0.5 * 2.0), atol=1e-9)
    projected = project(optax.apply_updates(params, updates), groups)
    np.testing.assert_array_equal(projected["norm1"]["alpha"], [1.0])
    np.testing.assert_array_equal(projected["norm1"]["gate"], [1.0])


@pytest.mark.parametrize(
    "wrong, words",
    [
        (lambda: ParamGroup(learning_rate=-1.0), "learning_rate must be a number from 0, but is -1.0"),
        (lambda: ParamGroup(clipping=float("nan")), "clipping must be a number from 0, but is nan"),
        (
            lambda: ParamGroup(bounds=(1.0, 0.0)),
            r"bounds must be the least and the greatest value, but are \(1.0, 0.0\)",
        ),
        (lambda: checked({"*": ParamGroup()}), "named gate has a group already, but the pattern '\\*' takes it"),
        (lambda: checked({"*/alpha": 3.0}), "must map patterns to ParamGroup, but have '\\*/alpha': 3.0"),
    ],
)
def test_a_group_that_makes_no_sense_is_refused(wrong, words):
    with pytest.raises(UserError, match=words):
        wrong()
