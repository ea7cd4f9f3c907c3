"""Statistics over a mapped axis, by vmap, shard_map and sharding, are those of one device, however masks are spread."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

SHAPE = (8, 4, 4, 8)


def mesh(size=4):
    if len(jax.devices()) < size:
        pytest.skip(f"needs {size} devices; tests/conftest.py forces 8 on CPU")
    return jax.make_mesh((size,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:size])


def data():
    rng = np.random.default_rng(0)
    # Samples far apart, and masks that leave one device nearly empty, another one quite.
    x = (rng.normal(size=SHAPE) + 100 * rng.normal(size=(8, 1, 1, 1))).astype(np.float32)
    mask = rng.uniform(size=(8, 4, 4, 1)) < np.array([0.9, 1, 0.1, 0.1, 0, 0, 0.7, 0.4])[:, None, None, None]
    return x, mask, rng.normal(size=SHAPE).astype(np.float32)


@pytest.fixture(params=["batch", "mixed"])
def build(request, cases, mixed):
    return cases["batch"].layer if request.param == "batch" else mixed


@pytest.fixture(params=[True, False], ids=["masked", "whole"])
def masked(request):
    return request.param


def step(layer, variables, x, mask, cotangent):
    """Output, new statistics and input gradient."""

    def apply(x):
        y, updates = layer.apply(variables, x, mask=mask, mutable=["batch_stats"])
        return y, updates["batch_stats"]

    y, pullback, stats = jax.vjp(apply, x, has_aux=True)
    return y, stats, pullback(cotangent)[0]


def one_device(build, masked):
    x, mask, cotangent = data()
    layer = build()
    variables = jax.jit(layer.init)(jax.random.key(0), x)
    mask = mask if masked else np.ones_like(mask)
    return variables, jax.jit(functools.partial(step, layer, variables))(x, mask if masked else None, cotangent)


def assert_same(actual, expected):
    for value, wanted in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(value, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("fast", [True, False])
def test_vmap_gives_the_answer_of_one_device(build, masked, fast):
    x, mask, cotangent = data()
    variables, (y, stats, d_x) = one_device(build, masked)
    layer = build(axis_name="replica", use_fast_variance=fast)
    args = [np.reshape(v, (4, 2, *v.shape[1:])) for v in (x, mask, cotangent)]
    args[1] = args[1] if masked else None
    run = jax.jit(jax.vmap(functools.partial(step, layer, variables), axis_name="replica", in_axes=(0, 0, 0)))
    mapped_y, mapped_stats, mapped_d_x = run(*args)
    assert_same((mapped_y.reshape(SHAPE), mapped_d_x.reshape(SHAPE)), (y, d_x))
    for replica in range(4):
        assert_same(jax.tree.map(lambda leaf, at=replica: leaf[at], mapped_stats), stats)


def test_shard_map_gives_the_answer_of_one_device(build, masked):
    x, mask, cotangent = data()
    variables, expected = one_device(build, masked)
    layer = build(axis_name="data")
    devices = mesh()
    # The statistics leave as replicated: shard_map checks that they are.
    run = jax.shard_map(
        functools.partial(step, layer, variables),
        mesh=devices,
        in_specs=(P("data"), P("data"), P("data")),
        out_specs=(P("data"), P(), P("data")),
    )
    assert_same(jax.jit(run)(x, mask if masked else None, cotangent), expected)


def test_groups_of_devices_have_statistics_of_their_own(build, masked):
    x, mask, cotangent = data()
    layer = build(axis_name="data", axis_index_groups=[[0, 1], [2, 3]])
    single = build()
    variables = jax.jit(single.init)(jax.random.key(0), x)
    run = jax.shard_map(
        functools.partial(step, layer, variables),
        mesh=mesh(),
        in_specs=(P("data"), P("data"), P("data")),
        out_specs=(P("data"), P("data"), P("data")),
        check_vma=False,  # jax cannot check groups
    )
    y, _, d_x = jax.jit(run)(x, mask if masked else None, cotangent)
    alone = jax.jit(functools.partial(step, single, variables))
    for half in (slice(0, 4), slice(4, 8)):
        part = mask[half] if masked else None
        own_y, _, own_d_x = alone(x[half], part, cotangent[half])
        assert_same((y[half], d_x[half]), (own_y, own_d_x))


def test_jit_over_a_sharded_batch_gives_the_answer_of_one_device(build, masked):
    x, mask, cotangent = data()
    variables, expected = one_device(build, masked)
    sharded = jax.device_put((x, mask if masked else None, cotangent), NamedSharding(mesh(), P("data")))
    traced = []

    @jax.jit
    def run(*arrays):
        traced.append(arrays)
        return step(build(), variables, *arrays)

    assert_same(run(*sharded), expected)
    run(*sharded)
    assert len(traced) == 1


@pytest.mark.parametrize("name", ["instance", "layer", "group"])
def test_positions_of_a_sample_may_lie_on_several_devices(cases, name, masked):
    x, mask, _ = data()
    mask = mask.copy()
    mask[..., 0, 0, :] = True  # no empty sample
    layer = cases[name].layer(axis_name="row")
    variables = jax.jit(layer.init)(jax.random.key(0), x)
    apply = jax.vmap(lambda x, mask: layer.apply(variables, x, mask=mask), (1, 1), 1, axis_name="row")
    expected = jax.jit(cases[name].layer().apply)(variables, x, mask=mask if masked else None)
    rows = np.expand_dims(x, 2), np.expand_dims(mask, 2) if masked else None
    # one row of each image per replica
    assert_same(jnp.squeeze(jax.jit(apply)(*rows), 2), expected)


def test_initialisation_needs_no_mapped_axis(cases, build):
    for layer in (build(axis_name="data"), cases["layer"].layer(axis_name="data")):
        variables = jax.eval_shape(layer.init, jax.random.key(0), data()[0])
        assert "scale" in variables["params"]
