"""What holds for every entry of NORMS, and which of them are equal."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxnorm.norms import BatchInstanceNorm, BatchNorm, GroupNorm, InstanceNorm, LayerNorm
from jaxnorm.study.registry import NORMS

SHAPE = (4, 6, 6, 8)
PER_SAMPLE = {"none", "in", "ln", "gn", "rms", "frn", "evo_s0", "dyt", "derf", "grn", "iln"}


@pytest.fixture(scope="module")
def x():
    return jax.random.normal(jax.random.key(0), SHAPE) + jnp.arange(4.0).reshape(4, 1, 1, 1)


@functools.cache
def run(id, train):
    return jax.jit(functools.partial(NORMS[id](train=train).apply, mutable=["batch_stats"]))


@functools.cache
def initial(id):
    return NORMS[id](train=True).init(jax.random.key(0), jnp.ones(SHAPE))


@pytest.fixture(params=[id for id in NORMS if id not in ("gn_ws", "bn_ws", "sws")])  # the norms of gn, bn and none
def id(request):
    return request.param


@pytest.mark.parametrize("train", [True, False])
def test_shape_dtype_and_one_compilation(id, x, train):
    traced = []

    @jax.jit
    def apply(variables, x):
        traced.append(x)
        return NORMS[id](train=train).apply(variables, x, mutable=["batch_stats"])

    (y, _), _ = apply(initial(id), x), apply(initial(id), x + 1)
    assert (y.shape, y.dtype) == (x.shape, x.dtype)
    assert len(traced) == 1
    low = NORMS[id](train=train, dtype=jnp.bfloat16)
    y, _ = low.apply(initial(id), x.astype(jnp.bfloat16), mutable=["batch_stats"])
    assert y.dtype == jnp.bfloat16


@pytest.mark.parametrize("train", [True, False])
def test_eager_equals_jit(id, x, train):
    eager = NORMS[id](train=train).apply(initial(id), x, mutable=["batch_stats"])
    compiled = run(id, train)(initial(id), x)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5), eager, compiled)


SHAPES = {"alpha": (), "shift": (), "progress": (), "mean_weights": (3,), "var_weights": (3,), "cov": (1, 8, 8)}
OWN = {
    **{id: {"gate"} for id in ("bin", "bin_frozen", "iln")},
    "dyt": {"alpha"},
    "derf": {"alpha", "shift"},
    "sn": {"mean_weights", "var_weights"},
}
KEPT = {"evo_b0": {"var"}, "iter": {"mean", "cov"}}


def test_variables_are_one_value_per_channel(id):
    variables = initial(id)
    for path, leaf in jax.tree_util.tree_leaves_with_path(variables):
        assert (leaf.shape, leaf.dtype) == (SHAPES.get(path[-1].key, (8,)), jnp.float32)
    expected = {"none": set(), "rms": {"scale"}}.get(id, {"scale", "bias"} | OWN.get(id, set()))
    assert set(variables.get("params", {})) == expected
    kept = set() if id in PER_SAMPLE else KEPT.get(id, {"mean", "var"})
    assert set(variables.get("batch_stats", {})) == kept


def test_evaluation_does_not_depend_on_batch_mates(id, x):
    y = run(id, False)(initial(id), x)[0]
    changed = run(id, False)(initial(id), x.at[1:].multiply(-7))[0]
    np.testing.assert_array_equal(y[0], changed[0])
    alone = NORMS[id](train=False).apply(initial(id), x[:1])
    np.testing.assert_allclose(alone[0], y[0], rtol=1e-6, atol=1e-6)


def test_evaluation_changes_no_statistic_and_needs_none_mutable(id, x):
    updates = run(id, False)(initial(id), x)[1]
    expected = {name: value for name, value in initial(id).items() if name == "batch_stats"}
    jax.tree.map(np.testing.assert_array_equal, dict(updates), expected)
    NORMS[id](train=False).apply(initial(id), x)


def test_gradients_cross_samples_only_where_the_batch_is_normalized(id, x):
    weight = jax.random.normal(jax.random.key(2), SHAPE[1:])  # y[0].sum() alone would not change with x

    def first_sample(x):
        return jnp.sum(run(id, True)(initial(id), x)[0][0] * weight)

    others = jax.grad(first_sample)(x)[1:]
    if id in PER_SAMPLE:
        np.testing.assert_array_equal(others, 0)
    else:
        assert jnp.abs(others).max() > 1e-4


def test_only_a_trainable_gate_has_a_gradient(x):
    def gate_gradient(id):
        params = initial(id)["params"] | {"gate": jnp.full(8, 0.5)}
        loss = lambda params: jnp.sum(run(id, True)(initial(id) | {"params": params}, x)[0] ** 3)  # noqa: E731
        return jax.grad(loss)(params)["gate"]

    assert jnp.abs(gate_gradient("bin")).min() > 0
    np.testing.assert_array_equal(gate_gradient("bin_frozen"), 0)


def test_the_gate_is_not_limited(x):
    outputs = [
        BatchInstanceNorm(False, gate_init=nn.initializers.constant(gate)).init_with_output(jax.random.key(0), x)[0]
        for gate in (0.0, 1.0, 2.0)
    ]
    np.testing.assert_allclose(outputs[2], 2 * outputs[1] - outputs[0], rtol=1e-4, atol=1e-5)


def same(left, right, x, variables=None):
    """Equal outputs and input gradients."""

    def both(layer):
        rest = layer.init(jax.random.key(0), x) if variables is None else variables
        y, pullback, _ = jax.vjp(lambda x: layer.apply(rest, x, mutable=["batch_stats"]), x, has_aux=True)
        return y, pullback(jnp.cos(x))[0]

    for value, wanted in zip(both(left), both(right), strict=True):
        np.testing.assert_allclose(value, wanted, rtol=1e-5, atol=1e-5)


def test_equivalences(x):
    same(LayerNorm(reduction_axes=(1, 2, 3)), GroupNorm(num_groups=1), x)
    same(InstanceNorm(), GroupNorm(num_groups=8), x)
    same(InstanceNorm(), LayerNorm(reduction_axes=(1, 2)), x)
    same(InstanceNorm(), BatchNorm(False, epsilon=1e-6), x[:1])


@pytest.mark.parametrize("average", [False, True])
def test_the_mixture_is_batch_norm_at_gate_1_and_instance_norm_at_gate_0(x, average):
    rng = np.random.default_rng(0)
    stats = {
        "mean": jnp.asarray(rng.normal(size=8), jnp.float32),
        "var": jnp.asarray(rng.uniform(0.5, 2, 8), jnp.float32),
    }
    params = {"scale": stats["var"] + 1, "bias": stats["mean"] - 1}
    for gate, other in ((1.0, BatchNorm(average)), (0.0, InstanceNorm(epsilon=1e-5))):
        variables = {"params": params | {"gate": jnp.full(8, gate)}, "batch_stats": stats}
        same(BatchInstanceNorm(average), other, x, variables)


def test_the_mixture_keeps_the_running_statistics_of_batch_norm(x):
    updates = [run(id, True)(initial(id), x)[1] for id in ("bn", "bin", "bin_frozen", "flax_bn")]
    for other in updates[1:]:
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), updates[0], other)


@pytest.mark.parametrize("shape", [(6, 8), (3, 5, 8), (2, 3, 4, 5, 8)])
def test_other_ranks(shape):
    def output(layer, x):
        return jax.jit(layer.init_with_output)(jax.random.key(0), x)[0]

    x = jax.random.normal(jax.random.key(0), shape) + 5
    for layer in (BatchNorm(False), BatchInstanceNorm(False), InstanceNorm(), LayerNorm(), GroupNorm(num_groups=2)):
        y = output(layer, x)
        assert y.shape == shape
        assert jnp.isfinite(y).all()
    axes = tuple(range(len(shape) - 1))
    expected = (x - x.mean(axes)) / jnp.sqrt(x.var(axes) + 1e-5)
    np.testing.assert_allclose(output(BatchNorm(False), x), expected, rtol=1e-4, atol=1e-5)
    # channels first
    moved = jnp.moveaxis(x, -1, 1)
    y = output(BatchInstanceNorm(False, axis=1), moved)
    np.testing.assert_allclose(jnp.moveaxis(y, 1, -1), expected, rtol=1e-4, atol=1e-5)


def test_what_group_norm_and_the_leading_axis_refuse():
    x = jnp.ones((2, 4, 4, 6))
    for layer, words in (
        (GroupNorm(num_groups=4), "num_groups must divide the 6 channels, but is 4"),
        (GroupNorm(num_groups=None, group_size=4), "group_size must divide the 6 channels, but is 4"),
        (GroupNorm(num_groups=0), "num_groups must divide the 6 channels, but is 0"),
        (GroupNorm(num_groups=2, group_size=3), "takes num_groups or group_size"),
        (GroupNorm(num_groups=None), "takes num_groups or group_size"),
        (GroupNorm(num_groups=2, reduction_axes=(1, 2)), "must include the last axis"),
        (InstanceNorm(feature_axes=(0, 3)), "cannot include the leading dimension"),
        (BatchInstanceNorm(False, axis=0), "cannot include the leading dimension"),
    ):
        with pytest.raises(ValueError, match=words):
            layer.init(jax.random.key(0), x)
