"""A mask selects the values that statistics are taken from, and the other values change nothing else."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxnorm.functional.moments import combine, compute_moments

SHAPE = (4, 6, 6, 8)
MASK_SHAPES = [SHAPE, (4, 6, 6, 1), (4, 1, 1, 1), (6, 1, 8), (1, 6, 6, 1)]


def sample(seed=0):
    return np.random.default_rng(seed).normal(size=SHAPE).astype(np.float32) + 3


def random_mask(shape):
    mask = np.random.default_rng(7).uniform(size=shape) < 0.6
    mask.flat[0] = False  # among them the first element, and whole samples
    return mask


@functools.cache
def step(layer):
    """Output, updates, and gradients of a weighted sum of the outputs that the mask selects."""

    def loss(params, x, rest, mask, selected):
        y, updates = layer.apply({"params": params, **rest}, x, mask=mask, mutable=["batch_stats"])
        return jnp.sum(jnp.where(selected, y * jnp.asarray(sample(3)), 0)), (y, updates)

    return jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))


@functools.cache
def initial(layer):
    return jax.jit(layer.init)(jax.random.key(0), jnp.ones(SHAPE))


def run(layer, x, mask):
    variables = dict(initial(layer))
    params = variables.pop("params")
    (_, (y, updates)), gradients = step(layer)(params, x, variables, mask, np.broadcast_to(mask, SHAPE))
    return y, updates, gradients


@pytest.mark.parametrize(("shape", "fast"), [*((shape, True) for shape in MASK_SHAPES), ((4, 6, 6, 1), False)])
def test_statistics_are_those_of_the_selected_values(case, oracle, shape, fast):
    x, mask = sample(), random_mask(shape)
    y, updates, _ = run(case.layer(use_fast_variance=fast), x, mask)
    np.testing.assert_allclose(y, oracle.normalize(x, case, mask=mask), rtol=1e-4, atol=1e-4)
    if updates:
        mean, var = (values[0, 0, 0] for values in oracle.moments(x, case, mask))
        some = np.broadcast_to(mask, SHAPE).any((0, 1, 2))
        np.testing.assert_allclose(updates["batch_stats"]["mean"], np.where(some, 0.01 * mean, 0), rtol=1e-5)
        np.testing.assert_allclose(updates["batch_stats"]["var"], np.where(some, 0.99 + 0.01 * var, 1), rtol=1e-5)


@pytest.mark.parametrize("shape", MASK_SHAPES)
def test_the_mixture_takes_both_statistics_from_the_selected_values(mixed, cases, oracle, shape):
    x, mask = sample(), random_mask(shape)
    y, updates, _ = run(mixed(gate_init=nn.initializers.constant(0.3)), x, mask)
    batch, instance = (oracle.normalize(x, cases[name], mask=mask) for name in ("batch", "instance"))
    np.testing.assert_allclose(y, 0.3 * batch + 0.7 * instance, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(
        updates["batch_stats"]["mean"], 0.01 * oracle.moments(x, cases["batch"], mask)[0][0, 0, 0], rtol=1e-5
    )


@pytest.mark.parametrize("mean", [1e2, 1e5])
def test_masked_statistics_do_not_cancel_either(case, oracle, mean):
    x, mask = (sample() + mean).astype(np.float32), random_mask((4, 6, 6, 1))
    mask[...] |= np.arange(6)[None, :, None, None] > 2  # no empty sets
    if case.axes == (3,):
        mask = random_mask(SHAPE)
        mask[..., 4:] = True
    y = run(case.layer(), x, mask)[0]
    assert np.abs(np.where(mask, y - oracle.normalize(x, case, mask=mask), 0)).max() < 2e-5


def test_rounding_makes_no_variance_negative():
    # The shift of masked sets, and of combined samples, is a rounded mean. Every value of a constant channel is equally
    # far from it, and the difference of two equal numbers consists of rounding errors only.
    values = np.random.default_rng(0).uniform(1, 1e5, 500).astype(np.float32)
    masked = jax.jit(lambda x, mask: compute_moments(x, (0,), mask=mask).var)
    assert (masked(np.broadcast_to(values, (1000, 500)), np.ones((1000, 1), bool)) >= 0).all()
    combined = jax.jit(lambda x: combine(compute_moments(x, (1, 2)), (0,)).var)
    assert (combined(np.broadcast_to(values, (47, 4, 4, 500))) >= 0).all()


@pytest.mark.parametrize("poison", [np.nan, -np.inf])
@pytest.mark.parametrize("fast", [True, False])
def test_values_that_are_not_selected_change_nothing(any_case, poison, fast):
    x, mask = sample(), random_mask((4, 6, 6, 1))
    layer = any_case(use_fast_variance=fast)
    poisoned, clean = (run(layer, np.where(mask, x, value), mask) for value in (poison, 0))
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(poisoned))
    selected = np.broadcast_to(mask, SHAPE)
    np.testing.assert_array_equal(poisoned[0][selected], clean[0][selected])
    jax.tree.map(np.testing.assert_array_equal, poisoned[1], clean[1])
    np.testing.assert_array_equal(poisoned[2][1][~selected], 0)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-6, atol=1e-6), poisoned[2][0], clean[2][0])
    np.testing.assert_allclose(poisoned[0][~selected], 0, atol=1e-6)  # the bias


def test_evaluation_gives_the_bias_where_a_value_is_neither_selected_nor_finite(cases, mixed):
    x, mask = sample(), random_mask((4, 6, 6, 1))
    for layer in (cases["batch"].layer(use_running_average=True), mixed(use_running_average=True)):
        y = layer.init_with_output(jax.random.key(0), np.where(mask, x, np.nan), mask=mask)[0]
        assert jnp.isfinite(y).all()


@pytest.mark.parametrize("fast", [True, False])
def test_an_all_false_mask_changes_no_running_statistic(any_case, fast):
    layer, mask = any_case(use_fast_variance=fast), np.zeros((4, 6, 6, 1), bool)
    y, updates, gradients = run(layer, sample() * np.nan, mask)
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves((y, gradients)))
    if updates:
        np.testing.assert_array_equal(updates["batch_stats"]["mean"], 0)
        np.testing.assert_array_equal(updates["batch_stats"]["var"], 1)


def test_a_mask_that_is_true_everywhere_changes_nothing(case):
    x = sample()
    y, updates, _ = run(case.layer(), x, np.ones((4, 6, 6, 1), bool))
    plain = jax.jit(functools.partial(case.layer().apply, mutable=["batch_stats"]))(initial(case.layer()), x)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), (y, updates), plain)


@pytest.mark.parametrize("shape", [(3, 1, 1, 1), (4, 6, 6, 2), (2, 4, 6, 6, 8)])
def test_a_mask_that_does_not_fit_raises_one_line(case, shape):
    with pytest.raises(ValueError, match=r"mask must broadcast to the input's shape \(4, 6, 6, 8\), but has") as error:
        case.layer().init(jax.random.key(0), sample(), mask=np.ones(shape, bool))
    assert "\n" not in str(error.value)
