"""jaxnorm.nnx beside flax.nnx: the same constructors, variables and values, under every transformation of flax.nnx."""

import dataclasses
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from flax import linen as nn
from flax import nnx as flax_nnx

from jaxnorm import nnx, norms

SHAPE = (4, 5, 6, 8)
FIELDS = {
    "BatchNorm": [{}, {"axis": 1, "momentum": 0.7}, {"use_scale": False, "use_bias": False}],
    "InstanceNorm": [{}, {"feature_axes": 1, "use_scale": False}],
    "LayerNorm": [{}, {"reduction_axes": (1, 2, 3)}, {"reduction_axes": (0, 2), "feature_axes": 1, "use_bias": False}],
    "GroupNorm": [{"num_groups": 4}, {"num_groups": None, "group_size": 2, "epsilon": 1e-3}],
}
PAIRS = [(name, fields) for name, choices in FIELDS.items() for fields in choices]
ALL = [*PAIRS, ("BatchInstanceNorm", {}), ("BatchNorm", {"ghost_batch_size": 2})]


def sample(shape=SHAPE, seed=0, dtype=np.float32):
    return (np.random.default_rng(seed).normal(size=shape) * 2 + 3).astype(dtype)


def make(module, name, fields, seed=0, **more):
    """The layer for inputs of SHAPE, with random parameters."""
    axis = fields.get("axis", fields.get("feature_axes", -1))
    init = dict(scale_init=nn.initializers.uniform(), bias_init=nn.initializers.uniform())
    return getattr(module, name)(SHAPE[axis], **init, **fields, **more, rngs=flax_nnx.Rngs(seed))


def leaves(layer):
    return flax_nnx.to_pure_dict(flax_nnx.state(layer, (flax_nnx.Param, flax_nnx.BatchStat)))


def assert_close(found, expected, tolerance=1e-5):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for value, wanted in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert value.dtype == wanted.dtype
        np.testing.assert_allclose(value, wanted, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", FIELDS)
def test_the_constructor_and_the_call_take_what_flax_s_take(name):
    ours, theirs = (inspect.signature(getattr(module, name).__init__).parameters for module in (nnx, flax_nnx))
    assert set(theirs) <= set(ours)
    for argument in theirs.values():
        own = ours[argument.name]
        assert own.kind == argument.kind
        if argument.name not in ("promote_dtype", "bias_init", "scale_init", "bias_metadata", "scale_metadata"):
            assert own.default == argument.default, argument.name
    calls = [inspect.signature(getattr(module, name).__call__).parameters.values() for module in (nnx, flax_nnx)]
    ours, theirs = ([(p.name, p.kind, p.default) for p in call] for call in calls)
    assert ours == [*theirs, *((name, inspect.Parameter.KEYWORD_ONLY, None) for name in ("scale", "bias"))]


def test_batch_instance_norm_takes_batch_norm_s_fields():
    batch, mixed = (inspect.signature(cls.__init__).parameters for cls in (nnx.BatchNorm, nnx.BatchInstanceNorm))
    assert [*mixed] == [*batch, "train_gate", "gate_init", "gate_metadata"]


@pytest.mark.parametrize("name", norms.__all__)
def test_fields_are_those_of_the_linen_layer(name):
    linen, fields = ({f.name for f in dataclasses.fields(getattr(module, name))} for module in (norms, nnx))
    assert all(each in ("parent", "name") or each.endswith("_init") for each in linen - fields)
    assert fields - linen == {"num_features", "promote_dtype"}


@pytest.mark.parametrize(("name", "fields"), PAIRS)
def test_variables_and_values_are_flax_s(name, fields):
    ours, theirs = make(nnx, name, fields), make(flax_nnx, name, fields)
    assert_close(leaves(ours), leaves(theirs), 0)
    assert jax.tree.map(type, flax_nnx.state(ours), is_leaf=lambda x: isinstance(x, flax_nnx.Variable)) == jax.tree.map(
        type, flax_nnx.state(theirs), is_leaf=lambda x: isinstance(x, flax_nnx.Variable)
    )
    for mask in (None, np.random.default_rng(5).uniform(size=SHAPE) < 0.7):
        if mask is not None and name == "GroupNorm":
            continue  # flax.nnx cannot
        assert_close(ours(sample(), mask=mask), theirs(sample(), mask=mask))
        assert_close(leaves(ours), leaves(theirs))
    for layer in (ours, theirs):
        layer.eval()
    assert_close(ours(sample(seed=1)), theirs(sample(seed=1)))
    assert_close(leaves(ours), leaves(theirs))


@pytest.mark.parametrize(("name", "fields"), PAIRS)
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.int32])
def test_dtypes_are_flax_s(name, fields, dtype):
    def shapes(module, **more):
        def call(x):
            layer = make(module, name, fields, **more)
            return layer(x), leaves(layer)

        return jax.eval_shape(call, jax.ShapeDtypeStruct(SHAPE, dtype))

    for wanted in (None, jnp.bfloat16):
        for param_dtype in (jnp.float32, jnp.bfloat16):
            more = dict(dtype=wanted, param_dtype=param_dtype)
            assert shapes(nnx, **more) == shapes(flax_nnx, **more)


def test_running_statistics_are_exact_in_bfloat16():
    x = jnp.asarray(sample((64, 8)) * 0.1 + 30, jnp.bfloat16)
    for cls in (nnx.BatchNorm, nnx.BatchInstanceNorm):
        layer = cls(8, dtype=jnp.bfloat16, param_dtype=jnp.bfloat16, momentum=0.5, rngs=flax_nnx.Rngs(0))
        mean, var = np.zeros(8), np.ones(8)
        wide = np.asarray(x, np.float64)
        for _ in range(20):
            assert layer(x[:, None]).dtype == jnp.bfloat16
            mean, var = 0.5 * mean + 0.5 * wide.mean(0), 0.5 * var + 0.5 * wide.var(0)
        assert layer.mean.dtype == layer.var.dtype == jnp.float32
        np.testing.assert_allclose(layer.mean[...], mean, rtol=1e-6)
        np.testing.assert_allclose(layer.var[...], var, rtol=1e-5)
        if cls is nnx.BatchNorm:
            expected = (wide - mean) / np.sqrt(var + 1e-5)
            layer.eval()
            # Rounding the mean, 30, to bfloat16 would add an error of up to 0.0625 / 0.2.
            np.testing.assert_allclose(np.asarray(layer(x), np.float64), expected, rtol=2**-8, atol=1e-4)


def test_a_given_promote_dtype_casts_as_in_flax():
    def promote(arrays, *, dtype):
        return tuple(None if array is None else jnp.asarray(array, jnp.float16) for array in arrays)

    for name, fields in (("BatchNorm", {}), ("LayerNorm", {"use_bias": False})):
        ours, theirs = (make(module, name, fields, promote_dtype=promote) for module in (nnx, flax_nnx))
        for _ in range(2):
            assert_close((ours(sample()), leaves(ours)), (theirs(sample()), leaves(theirs)), 0.01)
            for layer in (ours, theirs):
                layer.eval()


def test_modes():
    layer, x = nnx.BatchNorm(8, rngs=flax_nnx.Rngs(0)), sample()
    trained, running = layer(x), flax_nnx.clone(layer).mean[...]
    layer.eval()
    evaluated = layer(x)
    assert_close(layer.mean[...], running, 0)
    assert np.abs(trained - evaluated).max() > 0.1
    assert_close(layer(x, use_running_average=False), trained, 1e-6)
    layer.train()
    assert_close(layer(x, use_running_average=True), layer(x, True), 0)
    view = flax_nnx.view(layer, use_running_average=True)
    assert view.use_running_average is True and layer.use_running_average is False
    layer.use_running_average = None
    with pytest.raises(ValueError, match=r"use_running_average must be True or False, but is None.*call train\(\) or"):
        layer(x)


@pytest.mark.parametrize(("name", "fields"), ALL)
def test_jit_gives_what_eager_gives_and_traces_once(name, fields):
    eager, compiled, traced = make(nnx, name, fields), make(nnx, name, fields), []

    @flax_nnx.jit
    def step(layer, x):
        traced.append(x)
        return layer(x)

    for seed in range(3):
        assert_close(step(compiled, sample(seed=seed)), eager(sample(seed=seed)))
        assert_close(leaves(compiled), leaves(eager))
    assert len(traced) == 1


@pytest.mark.parametrize("name", [*FIELDS, "BatchInstanceNorm"])
def test_vmap_over_layers(name):
    fields = {"num_groups": 4} if name == "GroupNorm" else {}

    @flax_nnx.split_rngs(splits=3)
    @flax_nnx.vmap
    def several(rngs):
        return getattr(nnx, name)(8, scale_init=nn.initializers.uniform(), **fields, rngs=rngs)

    layers, x = several(flax_nnx.Rngs(0)), sample((3, *SHAPE))
    alone = [jax.tree.map(lambda leaf, at=at: leaf[at], flax_nnx.state(layers)) for at in range(3)]
    y = flax_nnx.vmap(lambda layer, x: layer(x))(layers, x)
    graph = flax_nnx.graphdef(layers)
    for at in range(3):
        layer = flax_nnx.merge(graph, alone[at])
        assert_close(y[at], layer(x[at]))
        assert_close(jax.tree.map(lambda leaf, at=at: leaf[at], leaves(layers)), leaves(layer))


def test_statistics_over_a_mapped_axis_are_those_of_the_whole():
    x = sample((6, 5, 8))
    whole, mapped = (nnx.BatchNorm(8, axis_name=name, rngs=flax_nnx.Rngs(0)) for name in (None, "part"))
    expected = whole(x)
    found = flax_nnx.vmap(lambda layer, x: layer(x), in_axes=(None, 0), axis_name="part")(mapped, x.reshape(3, 2, 5, 8))
    assert_close(found.reshape(x.shape), expected)
    assert_close(leaves(mapped), leaves(whole))


@pytest.mark.parametrize("name", [*FIELDS, "BatchInstanceNorm"])
def test_scan_over_layers(name):
    fields = {"num_groups": 4} if name == "GroupNorm" else {}

    @flax_nnx.split_rngs(splits=3)
    @flax_nnx.vmap
    def stacked(rngs):
        return getattr(nnx, name)(8, scale_init=nn.initializers.uniform(), **fields, rngs=rngs)

    layers, x = stacked(flax_nnx.Rngs(0)), sample()
    alone = [jax.tree.map(lambda leaf, at=at: leaf[at], flax_nnx.state(layers)) for at in range(3)]

    @flax_nnx.scan(in_axes=(0, flax_nnx.Carry), out_axes=flax_nnx.Carry)
    def forward(layer, x):
        return jnp.sin(layer(x)) * 3

    y, expected = forward(layers, x), x
    for at in range(3):
        layer = flax_nnx.merge(flax_nnx.graphdef(layers), alone[at])
        expected = jnp.sin(layer(expected)) * 3
        assert_close(jax.tree.map(lambda leaf, at=at: leaf[at], leaves(layers)), leaves(layer))
    assert_close(y, expected)


class Model(flax_nnx.Module):
    """A user's model, with each layer once."""

    def __init__(self, rngs):
        self.inner = flax_nnx.Linear(6, 8, rngs=rngs)
        self.norms = flax_nnx.List(
            [
                nnx.BatchNorm(8, rngs=rngs),
                nnx.BatchInstanceNorm(8, rngs=rngs),
                nnx.InstanceNorm(8, rngs=rngs),
                nnx.LayerNorm(8, use_bias=False, rngs=rngs),
                nnx.GroupNorm(8, 4, use_scale=False, rngs=rngs),
            ]
        )
        self.outer = flax_nnx.Linear(8, 1, rngs=rngs)

    def __call__(self, x):
        x = self.inner(x)
        for norm in self.norms:
            x = x + flax_nnx.relu(norm(x))
        return self.outer(x)[..., 0].mean(-1)


def trained(model, steps):
    optimizer = flax_nnx.Optimizer(model, optax.sgd(0.01), wrt=flax_nnx.Param)
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(16, 5, 6)).astype(np.float32), rng.normal(size=16).astype(np.float32)

    @flax_nnx.jit
    def step(model, optimizer):
        loss, gradients = flax_nnx.value_and_grad(lambda model: ((model(x) - y) ** 2).mean())(model)
        optimizer.update(model, gradients)
        return loss

    return x, [float(step(model, optimizer)) for _ in range(steps)]


def test_a_model_learns_and_comes_back_from_a_checkpoint(tmp_path):
    model = Model(flax_nnx.Rngs(0))
    x, losses = trained(model, 20)
    assert losses[-1] < losses[0] / 2
    model.eval()
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "state", flax_nnx.state(model))
        checkpointer.wait_until_finished()
        graph, abstract = flax_nnx.split(flax_nnx.eval_shape(lambda: Model(flax_nnx.Rngs(1))))
        restored = flax_nnx.merge(graph, checkpointer.restore(tmp_path / "state", abstract))
    restored.eval()
    assert_close(leaves(restored), leaves(model), 0)
    run = flax_nnx.jit(lambda model: model(x))
    assert_close(run(restored), run(model), 0)


def test_variables_of_the_linen_layer_give_the_same_values():
    x = sample()
    linen = norms.BatchInstanceNorm(True, scale_init=nn.initializers.uniform(), gate_init=nn.initializers.uniform())
    variables = linen.init(jax.random.key(0), x)
    layer = nnx.BatchInstanceNorm(8, use_running_average=True, rngs=flax_nnx.Rngs(0))
    flax_nnx.update(layer, {**variables["params"], **variables["batch_stats"]})
    assert_close(layer(x), linen.apply(variables, x), 0)


def test_metadata_reaches_the_variables():
    metadata = {"scale_metadata": {"tag": "a"}, "bias_metadata": {"tag": "b"}, "gate_metadata": {"tag": "c"}}
    layer = nnx.BatchInstanceNorm(8, **metadata, rngs=flax_nnx.Rngs(0))
    assert [getattr(layer, name).tag for name in ("scale", "bias", "gate")] == ["a", "b", "c"]


def test_groups_are_checked_when_the_layer_is_made():
    with pytest.raises(ValueError, match="group_norm's num_groups must divide the 8 channels, but is 3"):
        nnx.GroupNorm(8, 3, rngs=flax_nnx.Rngs(0))
