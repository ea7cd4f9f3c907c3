"""Values and gradients against float64, at any mean, for any finite input."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxnorm.functional.moments import compute_moments
from jaxnorm.norms import BatchNorm, GroupNorm, InstanceNorm, LayerNorm

SHAPE = (6, 16, 16, 8)
MEANS = (0.0, 1.0, 10.0, 1e2, 1e3, 1e4, 1e5)


def sample(mean, shape=SHAPE, seed=0, std=1.0):
    """Float32 values; rounding to float32 is part of the input, not an error of the layer."""
    return (np.random.default_rng(seed).normal(size=shape) * std + mean * std).astype(np.float32)


def variables_with(layer, x, seed=1):
    """The layer's variables with parameters and statistics away from their initial values."""
    variables = jax.jit(layer.init)(jax.random.key(0), x)
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda v: jnp.asarray(rng.uniform(0.5, 1.5, v.shape), v.dtype), variables)


@functools.cache
def compiled(layer):
    return jax.jit(layer.init_with_output)


def output(layer, x):
    return compiled(layer)(jax.random.key(0), x)[0]


def assert_close(value, expected, tolerance):
    value, expected = np.asarray(value, np.float64), np.asarray(expected)
    assert value.shape == expected.shape
    assert np.abs(value - expected).max() <= tolerance * np.abs(expected).max()


@pytest.mark.parametrize("std", [1.0, 30.0])
def test_error_stays_below_2e_5_at_every_mean(case, oracle, std):
    layer = jax.jit(case.layer(use_scale=False, use_bias=False).init_with_output)
    for mean in MEANS:
        x = sample(mean, std=std)
        assert np.abs(layer(jax.random.key(0), x)[0] - oracle.normalize(x, case)).max() < 2e-5, mean


def test_error_of_the_mixture_stays_below_2e_5_at_every_mean(mixed, cases, oracle):
    layer = jax.jit(mixed(use_scale=False, use_bias=False, gate_init=nn.initializers.constant(0.4)).init_with_output)
    for mean in MEANS:
        x = sample(mean)
        expected = 0.4 * oracle.normalize(x, cases["batch"]) + 0.6 * oracle.normalize(x, cases["instance"])
        assert np.abs(layer(jax.random.key(0), x)[0] - expected).max() < 2e-5, mean


def test_error_stays_below_2e_5_where_channels_and_samples_differ(case, oracle):
    rng = np.random.default_rng(0)
    x = sample(0) * rng.uniform(0.1, 10, (1, 1, 1, 8)) + rng.normal(size=(6, 1, 1, 8)) * 100
    x = x.astype(np.float32)
    assert np.abs(output(case.layer(), x) - oracle.normalize(x, case)).max() < 2e-5


def test_error_stays_below_2e_5_in_every_one_of_many_sets(cases, oracle):
    # The shift is the result of a draw; here it is drawn 2048 times, and the sums are long.
    x = sample(3.0, (64, 32, 32, 32))
    for name in ("batch", "instance"):
        assert np.abs(output(cases[name].layer(), x) - oracle.normalize(x, cases[name])).max() < 2e-5


@pytest.mark.optimized  # short sums are the compiler's work
@pytest.mark.parametrize("length", [16, 31, 32, 48, 63, 64, 768, 1030, 2048])
def test_error_stays_below_2e_5_at_any_length_of_the_last_axis(cases, oracle, length):
    for mean in (0.0, 1.0, 1e5):
        x = sample(mean, (2**20 // length, 1, 1, length))
        layer = cases["layer_last"]
        assert np.abs(output(layer.layer(use_scale=False, use_bias=False), x) - oracle.normalize(x, layer)).max() < 2e-5


@pytest.mark.optimized  # short sums are the compiler's work
@pytest.mark.parametrize("shape", [(2, 512, 512, 4), (2, 1, 1, 2**17)])
def test_error_stays_below_2e_5_in_long_sums(cases, oracle, shape):
    x = sample(1e5, shape)
    for name in ("batch", "instance") if shape[1] > 1 else ("layer_last",):
        assert np.abs(output(cases[name].layer(), x) - oracle.normalize(x, cases[name])).max() < 2e-5


@pytest.mark.parametrize("at", ["first", "middle", "last"])
def test_an_outlier_of_1e5_standard_deviations_costs_no_digits(case, oracle, at):
    x = sample(1.0)
    position = {"first": (0, 0, 0), "middle": (3, 8, 8), "last": (-1, -1, -1)}[at]
    x[position] = 1e5
    assert_close(output(case.layer(), x), oracle.normalize(x, case), 2e-6)


@pytest.mark.parametrize("mean", [0.0, 10.0])
def test_values_and_gradients_equal_the_analytic_ones(case, oracle, mean):
    x, cotangent = sample(mean), sample(0, seed=2)
    layer = case.layer()
    variables = variables_with(layer, x)
    scale, bias = (np.asarray(variables["params"][name], np.float64) for name in ("scale", "bias"))

    def apply(params, x):
        return layer.apply({**variables, "params": params}, x, mutable=["batch_stats"])[0]

    y, pullback = jax.vjp(jax.jit(apply), variables["params"], x)
    d_params, d_x = pullback(jnp.asarray(cotangent))
    x_hat, cotangent = oracle.normalize(x, case), cotangent.astype(np.float64)
    assert_close(y, x_hat * scale + bias, 1e-5)
    assert_close(d_x, oracle.gradient(x, case, cotangent * scale), 1e-5)
    assert_close(d_params["scale"], (cotangent * x_hat).sum((0, 1, 2)), 1e-5)
    assert_close(d_params["bias"], cotangent.sum((0, 1, 2)), 1e-5)


@pytest.mark.parametrize("mean", [0.0, 10.0])
def test_the_mixture_and_its_gradients_equal_the_analytic_ones(mixed, cases, oracle, mean):
    x = sample(mean) + np.random.default_rng(3).normal(size=(6, 1, 1, 8)).astype(np.float32)
    cotangent = sample(0, seed=2)
    layer = mixed()
    variables = variables_with(layer, x)
    scale, bias, gate = (np.asarray(variables["params"][name], np.float64) for name in ("scale", "bias", "gate"))

    def apply(params, x):
        return layer.apply({**variables, "params": params}, x, mutable=["batch_stats"])[0]

    y, pullback = jax.vjp(jax.jit(apply), variables["params"], x)
    d_params, d_x = pullback(jnp.asarray(cotangent))
    batch, instance = (oracle.normalize(x, cases[name]) for name in ("batch", "instance"))
    cotangent = cotangent.astype(np.float64)
    assert_close(y, scale * (gate * batch + (1 - gate) * instance) + bias, 1e-5)
    d_batch = oracle.gradient(x, cases["batch"], cotangent * scale * gate)
    assert_close(d_x, d_batch + oracle.gradient(x, cases["instance"], cotangent * scale * (1 - gate)), 1e-5)
    assert_close(d_params["gate"], (cotangent * scale * (batch - instance)).sum((0, 1, 2)), 1e-5)
    assert_close(d_params["scale"], (cotangent * (gate * batch + (1 - gate) * instance)).sum((0, 1, 2)), 1e-5)


def test_evaluation_uses_running_statistics(cases, mixed, oracle):
    x = sample(2.0)
    for layer in (cases["batch"].layer(use_running_average=True), mixed(use_running_average=True)):
        variables = variables_with(layer, x)
        params, stats = variables["params"], variables["batch_stats"]
        x_hat = (x - np.asarray(stats["mean"], np.float64)) / np.sqrt(stats["var"] + oracle.epsilon)
        if "gate" in params:
            x_hat = params["gate"] * x_hat + (1 - params["gate"]) * oracle.normalize(x, cases["instance"])
        assert_close(layer.apply(variables, x), params["scale"] * x_hat + params["bias"], 1e-5)


@pytest.mark.parametrize("name", ["batch", "instance", "layer", "layer_last", "group", "mixed"])
@pytest.mark.parametrize("masked", [False, True])
def test_derivatives_of_both_orders_equal_finite_differences(name, masked, cases, mixed):
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        x = jnp.asarray(rng.normal(size=(3, 4, 4, 8)) + 3)
        mask = jnp.asarray(rng.uniform(size=x.shape) < 0.8) if masked else None
        layer = mixed(param_dtype=jnp.float64) if name == "mixed" else cases[name].layer(param_dtype=jnp.float64)
        variables = variables_with(layer, x)
        weight = jnp.asarray(rng.normal(size=x.shape))

        def loss(point):
            y, _ = layer.apply({**variables, "params": point[0]}, point[1], mask=mask, mutable=["batch_stats"])
            return jnp.sum(weight * jnp.sin(y))

        direction = jax.tree.map(lambda v: jnp.asarray(rng.normal(size=v.shape)), (variables["params"], x))

        def along(tree):
            return sum(jnp.vdot(a, b) for a, b in zip(jax.tree.leaves(tree), jax.tree.leaves(direction), strict=True))

        @jax.jit
        def derivatives(h):
            """Value, first derivative by both modes, second by forward over reverse and reverse over reverse."""
            point = jax.tree.map(lambda v, d: v + h * d, (variables["params"], x), direction)
            value, forward = jax.jvp(loss, (point,), (direction,))
            gradient, curvature = jax.jvp(jax.grad(loss), (point,), (direction,))
            twice = jax.grad(lambda point: along(jax.grad(loss)(point)))(point)
            return value, (forward, along(gradient)), (along(curvature), along(twice))

        h = 1e-5
        (above, (slope_above, _), _), (below, (slope_below, _), _) = derivatives(h), derivatives(-h)
        _, first, second = derivatives(0.0)
        np.testing.assert_allclose(first, (above - below) / (2 * h), rtol=1e-5)
        np.testing.assert_allclose(second, (slope_above - slope_below) / (2 * h), rtol=1e-5)


def test_float64_input_keeps_its_digits(case, oracle):
    with jax.enable_x64(True):
        x = np.random.default_rng(0).normal(size=SHAPE) + 1e3
        y, _ = case.layer(param_dtype=jnp.float64).init_with_output(jax.random.key(0), x)
        assert y.dtype == jnp.float64
        assert np.abs(y - oracle.normalize(x, case)).max() < 1e-11


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_low_precision_input_is_right_to_its_own_rounding(case, oracle, dtype):
    x = jnp.asarray(sample(8.0), dtype)
    for fields, expected in (({}, jnp.float32), ({"dtype": dtype}, dtype)):
        y, variables = case.layer(**fields).init_with_output(jax.random.key(0), x)
        assert y.dtype == expected  # the parameters are float32, as in flax
        assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(variables))
        error = np.abs(np.asarray(y, np.float64) - oracle.normalize(np.asarray(x, np.float32), case))
        assert error.max() <= float(jnp.finfo(expected).eps) * 3 + 2e-5
    y, _ = case.layer(param_dtype=dtype).init_with_output(jax.random.key(0), x)
    assert y.dtype == dtype


def test_integer_input_is_normalized_in_float32(case, oracle):
    x = np.random.default_rng(0).integers(0, 255, SHAPE).astype(np.uint8)
    y, _ = case.layer(use_scale=False, use_bias=False).init_with_output(jax.random.key(0), x)
    assert y.dtype == jnp.float32
    assert np.abs(y - oracle.normalize(x, case)).max() < 2e-5


def test_constant_input_gives_the_bias(any_case):
    layer = any_case()
    run = jax.jit(jax.value_and_grad(lambda x: layer.init_with_output(jax.random.key(0), x)[0].sum()))
    for value in (0.0, 1.0, -3.7, 1e5, 1e10, 1e-30, 1e30):
        x = jnp.full((3, 7, 5, 12), value, jnp.float32)  # sizes that are no powers of two
        y, d_x = run(x)
        np.testing.assert_array_equal(output(layer, x), 0)
        assert y == 0
        assert jnp.isfinite(d_x).all()


def test_tiny_input_gives_finite_output_and_gradients(case, mixed):
    x = sample(0.5) * np.float32(1e-30)
    for layer in (case.layer(), mixed()):
        variables = jax.jit(layer.init)(jax.random.key(0), x)

        def loss(x, layer=layer, variables=variables):
            y, updates = layer.apply(variables, x, mutable=["batch_stats"])
            return jnp.sum(y * sample(0, seed=4)), (y, updates)

        d_x, results = jax.jit(jax.grad(loss, has_aux=True))(x)
        assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves((d_x, results)))


def test_huge_input_is_normalized_while_its_squares_are_numbers(case, oracle):
    x = sample(0.5, std=1e17)
    assert np.abs(output(case.layer(), x) - oracle.normalize(x, case)).max() < 2e-5
    for magnitude in (1e22, 1e30):
        assert np.isnan(output(case.layer(), sample(0.5, std=magnitude))).all()


def test_integers_and_the_real_part_of_complex_input(any_case):
    x = np.random.default_rng(0).integers(-9, 9, (3, 4, 4, 8))
    expected = output(any_case(), x.astype(np.float32))
    for values, fields in (
        (x.astype(np.int32), {"force_float32_reductions": False}),
        (x.astype(np.int8), {}),
        ((x + 3j).astype(np.complex64), {"dtype": jnp.float32}),
    ):
        y = output(any_case(**fields), values)
        assert y.dtype == jnp.float32
        np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6)


def test_variance_has_its_full_derivative_at_constant_input():
    # A clip at zero by maximum() would halve it.
    hessian = jax.jit(jax.hessian(lambda x: compute_moments(x, (0,)).var[0]))(jnp.full(4, 3.0))
    np.testing.assert_allclose(hessian, 2 / 4 * (np.eye(4) - 1 / 4), atol=1e-7)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    st.lists(st.floats(-(2.0**50), 2.0**50, width=32), min_size=24, max_size=24),
    st.sampled_from([(0,), (1,), (0, 1), (0, 1, 2), (1, 2), (2,)]),
)
def test_variance_is_never_negative_and_output_never_nan(values, axes):
    x = jnp.asarray(values, jnp.float32).reshape(2, 3, 4)
    moments = jax.jit(compute_moments, static_argnums=1)(x, axes)
    assert (moments.var >= 0).all()
    y = output(LayerNorm(reduction_axes=axes), x)
    assert jnp.isfinite(y).all()


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.integers(0, 1000), st.floats(0.1, 100), st.floats(-100, 100), st.sampled_from(["batch", "instance", "group"]))
def test_output_does_not_depend_on_scale_and_shift_of_the_input(seed, factor, shift, name):
    layers = {"batch": BatchNorm(False, epsilon=0.0), "instance": InstanceNorm(epsilon=0.0)}
    layer = layers.get(name, GroupNorm(num_groups=2, epsilon=0.0))
    x = sample(0, (2, 4, 4, 4), seed)
    y, moved = output(layer, x), output(layer, (x * factor + shift).astype(np.float32))
    np.testing.assert_allclose(moved, y, atol=2e-6 * (10 + abs(shift) / factor))


@pytest.mark.parametrize("shape", [(2, 0, 3, 4), (0, 3, 3, 4), (2, 3, 3, 0)])
def test_empty_input_gives_empty_output_and_leaves_statistics_alone(case, mixed, shape):
    x = jnp.zeros(shape)
    if case.group_size and not shape[-1]:
        pytest.skip("no channels make no groups: GroupNorm raises")
    for layer in (case.layer(), mixed()):
        variables = jax.jit(layer.init)(jax.random.key(0), x)
        y, updates = jax.jit(functools.partial(layer.apply, mutable=["batch_stats"]))(variables, x)
        assert y.shape == shape
        jax.tree.map(
            np.testing.assert_array_equal, dict(updates), {k: v for k, v in variables.items() if k != "params"}
        )


def test_nan_in_the_input_is_not_hidden(case):
    x = sample(0)
    x[0, 5, 5, 0] = np.nan
    y = output(case.layer(), x)
    assert jnp.isnan(y[0, 5, 5]).any()


@pytest.mark.parametrize("shape", [(1, 4), (1, 1, 1, 4)])
def test_one_value_per_channel_raises_in_training_only(mixed, shape):
    x = jnp.ones(shape)
    for layer in (BatchNorm(momentum=0.9), mixed(use_running_average=None)):
        variables = layer.init(jax.random.key(0), x, use_running_average=False)
        with pytest.raises(ValueError, match=rf"more than one value per channel.*shape \({shape[0]}, ") as error:
            layer.apply(variables, x, use_running_average=False, mutable=["batch_stats"])
        assert "\n" not in str(error.value)
        layer.apply(variables, x, use_running_average=True)
        layer.apply(variables, x, use_running_average=False, mask=jnp.ones(shape, bool), mutable=["batch_stats"])
    for layer in (InstanceNorm(), LayerNorm(), GroupNorm(num_groups=4)):
        assert jnp.isfinite(layer.init_with_output(jax.random.key(0), x)[0]).all()


def test_running_statistics_by_value(cases, mixed, oracle):
    for layer in (cases["batch"].layer(momentum=0.9), mixed(momentum=0.9)):
        batches = [sample(3.0, (4, 6, 6, 8), seed) for seed in range(100)]
        variables = layer.init(jax.random.key(0), batches[0])
        stats = variables["batch_stats"]
        update = jax.jit(functools.partial(layer.apply, mutable="batch_stats"))
        mean, var = np.zeros(8), np.ones(8)
        for count, batch in enumerate(batches, 1):
            stats = update({**variables, "batch_stats": stats}, batch)[1]["batch_stats"]
            batch_mean, batch_var = (values[0, 0, 0] for values in oracle.moments(batch, cases["batch"]))
            mean, var = 0.9 * mean + 0.1 * batch_mean, 0.9 * var + 0.1 * batch_var
            if count in (1, 2, 100):
                np.testing.assert_allclose(stats["mean"], mean, rtol=1e-5)
                np.testing.assert_allclose(stats["var"], var, rtol=1e-5)


def test_first_updates_are_biased_towards_mean_0_and_variance_1(cases):
    """After n updates on a stationary input, momentum^n of the initial statistics is left."""
    x = sample(0, (16, 8, 8, 8), std=3.0)
    layer = cases["batch"].layer(momentum=0.9)
    variables = layer.init(jax.random.key(0), x)
    apply = jax.jit(functools.partial(layer.apply, mutable=["batch_stats"]))
    for count in range(1, 51):
        _, updates = apply(variables, x)
        variables = {**variables, **updates}
        if count in (1, 10, 50):
            left = 0.9**count
            np.testing.assert_allclose(variables["batch_stats"]["var"], left + (1 - left) * x.var((0, 1, 2)), rtol=1e-4)
    y = layer.clone(use_running_average=True).apply(variables, x)
    np.testing.assert_allclose(y.std((0, 1, 2)), 1, atol=0.01)
