"""`fold_batch_norm`: the same output, weights as computed in float64, and refusals by evidence."""

import functools

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxnorm
from jaxnorm import BatchNorm, UserError, fold_batch_norm

KEY = jax.random.key(0)
EVAL = functools.partial(BatchNorm, use_running_average=True)


def trained(tree, seed=0):
    """Values as after some training: everything random, variances positive."""
    rng = np.random.default_rng(seed)
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: jnp.asarray(
            rng.uniform(0.5, 2, leaf.shape) if "var" in str(path) else rng.normal(size=leaf.shape), leaf.dtype
        ),
        tree,
    )


def images(dtype=np.float32):
    return np.random.default_rng(1).normal(1, 2, (2, 6, 6, 4)).astype(dtype)


LAYERS = {
    "conv": functools.partial(nn.Conv, 6, (3, 3)),
    "our conv, strides": functools.partial(jaxnorm.Conv, 6, (3, 3), strides=2),
    "groups": functools.partial(nn.Conv, 6, (3, 3), feature_group_count=2),
    "masked": functools.partial(nn.Conv, 6, (1, 1), mask=np.eye(6)[None, None, :4]),
    "local": functools.partial(nn.ConvLocal, 6, (3, 3)),
    "transpose": functools.partial(nn.ConvTranspose, 6, (3, 3), strides=(2, 2)),
    "transposed kernel": functools.partial(nn.ConvTranspose, 6, (3, 3), transpose_kernel=True),
    "dense": functools.partial(nn.Dense, 6),
}
NORMS = {
    "ours": EVAL,
    "flax's": functools.partial(nn.BatchNorm, use_running_average=True, epsilon=0.1),
    "without scale": functools.partial(EVAL, use_scale=False),
    "without bias": functools.partial(EVAL, use_bias=False, axis=3),
}


PAIRS = [*((layer, "ours") for layer in LAYERS), *(("dense", norm) for norm in NORMS if norm != "ours")]


@pytest.mark.parametrize("use_bias", [True, False])
@pytest.mark.parametrize("layer, norm, dtype", [*((*pair, np.float64) for pair in PAIRS), ("conv", "ours", np.float32)])
def test_the_output_is_the_same_and_the_norm_does_nothing(layer, norm, dtype, use_bias):
    tolerance = 1e-12 if dtype == np.float64 else 1e-5
    with jax.enable_x64(dtype == np.float64):
        layers = [LAYERS[layer](use_bias=use_bias, param_dtype=dtype), NORMS[norm](param_dtype=dtype), nn.relu]
        net, x = nn.Sequential(layers), images(dtype)
        variables = trained(jax.eval_shape(net.init, KEY, x))
        folded, apply = fold_batch_norm(net, variables, x), jax.jit(net.apply)
        y, expected = apply(folded, x), apply(variables, x)
        assert y.dtype == dtype
        np.testing.assert_allclose(y, expected, rtol=tolerance, atol=tolerance * np.abs(expected).max())
        params, statistics = folded["params"], folded["batch_stats"]["layers_1"]
        chex.assert_trees_all_equal_shapes(folded, variables)
        np.testing.assert_allclose(statistics["var"], 1 - layers[1].epsilon, rtol=1e-7)
        np.testing.assert_array_equal(params.get("layers_1", {}).get("scale", 1), 1)
        if use_bias:
            np.testing.assert_array_equal(params.get("layers_1", {}).get("bias", 0), 0)
            np.testing.assert_array_equal(statistics["mean"], 0)


def test_kernel_and_bias_are_those_of_the_formula():
    net, x = nn.Sequential([nn.Dense(6), EVAL(epsilon=0.5)]), images()
    variables = trained(net.init(KEY, x))
    folded = fold_batch_norm(net, variables, x)["params"]["layers_0"]
    dense, norm = (jax.tree.map(np.float64, variables["params"][name]) for name in ("layers_0", "layers_1"))
    mean, var = (np.float64(variables["batch_stats"]["layers_1"][name]) for name in ("mean", "var"))
    factor = norm["scale"] / np.sqrt(var + 0.5)
    np.testing.assert_allclose(folded["kernel"], dense["kernel"] * factor, rtol=1e-6)
    np.testing.assert_allclose(folded["bias"], (dense["bias"] - mean) * factor + norm["bias"], rtol=1e-5, atol=1e-6)


def test_the_study_s_network_with_its_shortcuts():
    net, x = jaxnorm.ResNet(norm=jaxnorm.NORMS["bn"], num_blocks=1, num_filters=4), images()[..., :3]
    variables = trained(jax.eval_shape(functools.partial(net.init, train=False), KEY, x))
    folded, apply = fold_batch_norm(net, variables, x), jax.jit(functools.partial(net.apply, train=False))
    expected = apply(variables, x)
    np.testing.assert_allclose(apply(folded, x), expected, rtol=1e-4, atol=1e-5 * abs(expected).max())
    means = [leaf for path, leaf in jax.tree_util.tree_leaves_with_path(folded["batch_stats"]) if "mean" in str(path)]
    assert len(means) == 1 + 3 * 2 + 2 and not any(leaf.any() for leaf in means)


class Misleading(nn.Module):
    """Names and order of definition say the contrary of what is computed."""

    @nn.compact
    def __call__(self, x, train):
        first, second = nn.Dense(4, name="dense2"), nn.Dense(4, name="dense1")
        norms = [BatchNorm(use_running_average=not train, name=name) for name in ("dense1_norm", "dense2_norm")]
        y = nn.Dropout(0.5, deterministic=not train)(second(norms[0](first(x))))
        return norms[1](jax.ad_checkpoint.checkpoint_name(y, "a name for a policy of jax.checkpoint"))


class Lifted(nn.Module):
    lift: object

    @nn.compact
    def __call__(self, x, train):
        return self.lift(Misleading, static_argnums=2)(name="inner")(x, train)


@pytest.mark.parametrize("lift", [nn.jit, nn.remat])
def test_the_layer_before_is_found_by_what_is_computed(lift):
    net, x = Lifted(lift), images()
    full = trained(jax.eval_shape(lambda: net.init(KEY, x, False)))
    variables = {name: values["inner"] for name, values in full.items()}
    folded = fold_batch_norm(net, full, x)["params"]["inner"]
    for norm, layer in (("dense1_norm", "dense2"), ("dense2_norm", "dense1")):
        factor = variables["params"][norm]["scale"] / np.sqrt(variables["batch_stats"][norm]["var"] + 1e-5)
        np.testing.assert_allclose(folded[layer]["kernel"], variables["params"][layer]["kernel"] * factor, rtol=1e-5)


def test_layers_of_a_scan_are_folded_one_by_one():
    class Layer(nn.Module):
        @nn.compact
        def __call__(self, x, _):
            return nn.relu(EVAL()(nn.Conv(4, (3, 3))(x))), None

    net = nn.scan(Layer, variable_axes={"params": 0, "batch_stats": 0}, split_rngs={"params": True}, length=3)()
    variables = trained(net.init(KEY, images(), None))
    folded = fold_batch_norm(net, variables, (images(), None))
    expected = net.apply(variables, images(), None)[0]
    np.testing.assert_allclose(
        net.apply(folded, images(), None)[0], expected, rtol=1e-4, atol=1e-5 * abs(expected).max()
    )
    assert not folded["batch_stats"]["BatchNorm_0"]["mean"].any()


def between(x, norm, first, second):
    return norm(nn.relu(first(x)))


def used_elsewhere(x, norm, first, second):
    y = first(x)
    return norm(y) + y


def result(x, norm, first, second):
    y = first(x)
    return norm(y), y


def two_sources(x, norm, first, second):
    return norm(first(x)) + norm(second(x))


def two_norms(x, norm, first, second):
    y = first(x)
    return norm(y) + EVAL()(y)


REFUSED = {
    between: "`BatchNorm_0` reads the output of `relu`, not of one",
    used_elsewhere: "`BatchNorm_0` reads the output of `Dense_0`, which `add` reads, too",
    result: "`Dense_0`, which `the result` reads, too",
    two_sources: "`BatchNorm_0` reads the output of `Dense_0` and `Dense_1`, not of one",
    two_norms: "`Dense_0`, which `BatchNorm_1` reads, too",
    lambda x, norm, first, second: norm(x): "reads the output of `an argument`, not",
    lambda x, norm, first, second: norm(first(x) * 2): "reads the output of `mul`, not",
    lambda x, norm, first, second: norm(first(x).reshape(-1, 4)): "reads the output of `reshape`, not",
    lambda x, norm, first, second: norm(first(x), use_running_average=False): "`BatchNorm_0` normalizes by the batch;",
    lambda x, norm, first, second: EVAL(axis=1)(first(x)): "`BatchNorm_1` does not multiply each channel of the last",
    lambda x, norm, first, second: jaxnorm.BatchInstanceNorm(True)(first(x)): "`BatchInstanceNorm_0` does not multiply",
}


class Free(nn.Module):
    call: object

    @nn.compact
    def __call__(self, x):
        return self.call(x, BatchNorm(), nn.Dense(4), nn.Dense(4))


@pytest.mark.parametrize("call", REFUSED)
def test_a_norm_that_is_not_alone_after_one_layer_is_refused_in_one_line(call):
    def in_evaluation(x, norm, *layers):
        return call(x, lambda x, use_running_average=True: norm(x, use_running_average), *layers)

    net, x = Free(in_evaluation), images()
    variables = net.init(KEY, x)
    with pytest.raises(UserError, match=REFUSED[call]) as caught:
        fold_batch_norm(net, variables, x)
    assert "\n" not in str(caught.value)


def test_norms_to_skip_remain_as_they_are():
    net = nn.Sequential([nn.Dense(4), EVAL(), nn.relu, EVAL(), nn.Dense(4), EVAL()])
    variables = trained(net.init(KEY, images()))
    with pytest.raises(UserError, match=r"""`layers_3` reads the output of `relu`.*; give skip=\["layers_3"\]"""):
        fold_batch_norm(net, variables, images())
    folded = fold_batch_norm(net, variables, images(), skip=["layers_3"])
    np.testing.assert_allclose(net.apply(folded, images()), net.apply(variables, images()), rtol=1e-4, atol=1e-4)
    chex.assert_trees_all_equal(folded["batch_stats"]["layers_3"], variables["batch_stats"]["layers_3"])
    assert not folded["batch_stats"]["layers_1"]["mean"].any()
    with pytest.raises(UserError, match="`skip` names batch norms that the model calls, but `layers_2` is none"):
        fold_batch_norm(net, variables, images(), skip=["layers_2"])


def test_a_kernel_that_is_computed_from_another_one_is_noticed():
    class Normalized(nn.Module):
        @nn.compact
        def __call__(self, x):
            return EVAL()(nn.WeightNorm(nn.Dense(4))(x))

    variables = trained(Normalized().init(KEY, images()))
    with pytest.raises(UserError, match="must give the same output, but differs by .* name in `skip`"):
        fold_batch_norm(Normalized(), variables, images())


def test_a_model_without_batch_norm_has_nothing_to_fold():
    net = nn.Sequential([nn.Dense(4), nn.LayerNorm()])
    with pytest.raises(UserError, match="needs a BatchNorm of jaxnorm or flax, but the model calls none"):
        fold_batch_norm(net, net.init(KEY, images()), images())


class Nnx(nnx.Module):
    def __init__(self, use_bias, param_dtype, norm):
        settings = dict(use_bias=use_bias, param_dtype=param_dtype, rngs=nnx.Rngs(0))
        self.layers = nnx.List(
            [
                nnx.Conv(4, 6, (3, 3), **settings),
                nnx.ConvTranspose(6, 6, (3, 3), strides=(2, 2), transpose_kernel=True, **settings),
                nnx.Linear(6, 6, **settings),
            ]
        )
        self.norms = nnx.List([norm(6, param_dtype=param_dtype, rngs=nnx.Rngs(1)) for _ in range(3)])

    def __call__(self, x):
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x = nnx.relu(norm(layer(x)))
        return x


NNX_CASES = [
    (jaxnorm.nnx.BatchNorm, True, np.float32, 1e-5),
    (jaxnorm.nnx.BatchNorm, False, np.float64, 1e-12),
    (nnx.BatchNorm, False, np.float64, 1e-12),
]


@pytest.mark.parametrize("norm, use_bias, dtype, tolerance", NNX_CASES)
def test_in_nnx_the_norms_are_gone(norm, use_bias, dtype, tolerance):
    with jax.enable_x64(dtype == np.float64):
        net, x = Nnx(use_bias, dtype, norm), images(dtype)
        nnx.update(net, trained(nnx.state(net)))
        before = nnx.state(net)
        folded = fold_batch_norm(net, x)
        chex.assert_trees_all_equal(nnx.state(net), before)
        net.eval()
        folded.eval()
        y, expected = (nnx.jit(Nnx.__call__)(each, x) for each in (folded, net))
        np.testing.assert_allclose(y, expected, rtol=tolerance, atol=tolerance * np.abs(expected).max())
        assert {path[0] for path, _ in nnx.to_flat_state(nnx.state(folded))} == {"layers"}
        assert not any(isinstance(module, norm) for _, module in nnx.iter_modules(folded))


def test_in_nnx_what_is_between_is_refused():
    net = nnx.Sequential(nnx.Linear(4, 4, rngs=nnx.Rngs(0)), nnx.relu, nnx.BatchNorm(4, rngs=nnx.Rngs(0)))
    with pytest.raises(UserError, match="`layers/2` reads the output of `relu`"):
        fold_batch_norm(net, images())
