"""`inspect_norms` against NumPy: what it counts and measures, and what it calls a fault."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxnorm
from jaxnorm import BatchInstanceNorm, BatchNorm, UserError, inspect_norms

KEY = jax.random.key(0)


def images(*shape):
    return np.random.default_rng(0).normal(1, 2, shape or (6, 4, 4, 8)).astype(np.float32)


class Net(nn.Module):
    """A norm of each kind."""

    @nn.compact
    def __call__(self, x, train):
        x = nn.Conv(8, (3, 3), name="conv")(x)
        x = BatchNorm(use_running_average=not train, name="batch")(x)
        x = BatchInstanceNorm(use_running_average=not train, name="mixed")(x)
        x = nn.GroupNorm(num_groups=2, name="group")(x)
        x = jaxnorm.GroupNorm(num_groups=None, group_size=2, name="group_size")(x)
        x = jaxnorm.InstanceNorm(name="instance")(x)
        x = nn.LayerNorm(name="layer")(x)
        x = jaxnorm.LayerNorm(reduction_axes=(1, 2, 3), name="layer_all")(x)
        x = nn.RMSNorm(name="rms")(x)
        return nn.BatchNorm(use_running_average=not train, axis=1, name="by_row")(x)


@pytest.fixture(scope="module")
def variables():
    return jax.jit(Net().init, static_argnums=2)(KEY, images(), False)


def test_one_row_for_each_norm_in_the_order_of_the_calls(variables):
    table = inspect_norms(Net(), variables, images())
    assert [(row.path, row.layer, row.values, row.channels) for row in table] == [
        ("batch", "BatchNorm", 6 * 4 * 4, 8),
        ("mixed", "BatchInstanceNorm", 4 * 4, 8),
        ("group", "GroupNorm", 4 * 4 * 4, 8),
        ("group_size", "GroupNorm", 4 * 4 * 2, 8),
        ("instance", "InstanceNorm", 4 * 4, 8),
        ("layer", "LayerNorm", 8, 8),
        ("layer_all", "LayerNorm", 4 * 4 * 8, 8),
        ("rms", "RMSNorm", 8, 8),
        ("by_row", "BatchNorm", 6 * 4 * 8, 4),
    ]
    assert {row.shape for row in table} == {(6, 4, 4, 8)}
    assert [row.path for row in table if "few values" in row.warnings] == ["layer", "rms"]
    assert [row.path for row in table if row.mean_shift is not None] == ["batch", "mixed", "by_row"]
    assert [row.gate for row in table if row.gate is not None] == [(1, 1, 1)]
    lines = str(table).splitlines()
    assert len(lines) == 1 + len(table)
    assert [line.split()[0] for line in lines[1:]] == [row.path for row in table]


VALUES = {  # of images (6, 4, 4, 8); whether it has a running mean
    "BatchGroupNorm": (6 * 4 * 4 * 4, True, {"group_size": 4}),
    "BatchInstanceNorm": (4 * 4, True, {}),
    "BatchNorm": (6 * 4 * 4, True, {}),
    "BatchRenorm": (6 * 4 * 4, True, {}),
    "DynamicErf": (None, False, {}),
    "DynamicTanh": (None, False, {}),
    "EvoNormB0": (4 * 4, False, {}),
    "EvoNormS0": (4 * 4 * 4, False, {"num_groups": 2}),
    "FilterResponseNorm": (4 * 4, False, {}),
    "GlobalResponseNorm": (4 * 4, False, {}),
    "GroupNorm": (4 * 4 * 4, False, {"num_groups": 2}),
    "InstanceLayerNorm": (4 * 4, False, {}),
    "InstanceNorm": (4 * 4, False, {}),
    "IterNorm": (6 * 4 * 4, True, {"group_size": 4}),
    "LayerNorm": (8, False, {}),
    "RMSNorm": (8, False, {}),
    "SwitchableNorm": (4 * 4, True, {}),
}


@pytest.mark.parametrize("name", jaxnorm.norms.__all__)
def test_every_layer_has_a_row_in_both_interfaces(name):
    values, has_mean, fields = VALUES[name]
    linen, other = getattr(jaxnorm, name)(**fields), getattr(jaxnorm.nnx, name)(8, **fields, rngs=nnx.Rngs(0))
    evaluation = {"use_running_average": True} if hasattr(linen, "use_running_average") else {}
    variables = linen.init(KEY, images(), **evaluation)
    variables = (
        jaxnorm.recompute_statistics(linen, variables, [images()], use_running_average=False)
        if (evaluation and name != "BatchRenorm")
        else variables
    )
    (row,) = inspect_norms(linen, variables, images(), **evaluation)
    (nnx_row,) = inspect_norms(other, images())
    assert [(each.layer, each.values, each.channels) for each in (row, nnx_row)] == [(name, values, 8)] * 2
    assert (row.mean_shift is not None) == has_mean
    assert (row.var_ratio is not None) == bool(evaluation)
    if evaluation and name != "BatchRenorm":
        assert "stale" not in row.warnings and "stale" in nnx_row.warnings
        assert (row.mean_shift or 0, row.var_ratio) == pytest.approx((0, 1), abs=1e-4)
    assert ("few values" in row.warnings) == (values == 8)
    assert (row.gate is not None) == (name in ("BatchInstanceNorm", "InstanceLayerNorm"))
    assert len(str(inspect_norms(other, images())).splitlines()) == 2


@pytest.mark.parametrize("interface", ["linen", "nnx"])
def test_the_distance_between_running_and_batch_statistics(interface):
    x = images(64, 3) * [1, 5, 1]
    mean, var = x.mean(0), x.var(0)
    running = {"mean": mean + 0.7 * np.sqrt(var) * [0, 1, 0], "var": var * [1, 1, 0.25]}
    if interface == "linen":
        layer = BatchNorm(use_running_average=True)
        (row,) = inspect_norms(layer, {**layer.init(KEY, x), "batch_stats": running}, x)
    else:
        layer = nnx.BatchNorm(3, rngs=nnx.Rngs(0))
        layer.mean[...], layer.var[...] = running["mean"], running["var"]
        (row,) = inspect_norms(layer, x)
    assert (row.mean_shift, row.var_ratio) == pytest.approx((0.7, 4), rel=1e-4)
    assert row.warnings == ("stale",)


def test_recomputed_statistics_are_not_stale():
    layer, x = BatchNorm(), images(64, 3)
    variables = layer.init(KEY, x, True)
    assert inspect_norms(layer, variables, x, use_running_average=True)[0].warnings == ("stale",)
    variables = jaxnorm.recompute_statistics(layer, variables, [x], use_running_average=False)
    (row,) = inspect_norms(layer, variables, x, use_running_average=True)
    assert row.warnings == ()
    assert (row.mean_shift, row.var_ratio) == pytest.approx((0, 1), abs=1e-4)


def test_channels_that_are_constant_nowhere_positive_or_exploding_are_counted():
    x = images(64, 6)
    x[:, 1] = 3  # constant
    layer = BatchNorm(use_running_average=True)
    scale, bias, mean, var = np.ones(6), np.zeros(6), x.mean(0), x.var(0)
    scale[0], bias[2], var[3], var[1], x[5, 4] = 0, -9, 1e-8, 1, np.inf
    params = {"scale": jnp.array(scale), "bias": jnp.array(bias)}
    (row,) = inspect_norms(layer, {"params": params, "batch_stats": {"mean": mean, "var": var}}, x)
    assert (row.dead, row.negative, row.exploding) == (2, 1, 2)
    assert {"dead", "exploding"} <= set(row.warnings)


def test_gates_masks_and_ghosts():
    x = images(6, 4, 4, 3)
    layer = BatchInstanceNorm(use_running_average=True)
    variables = layer.init(KEY, x)
    variables["params"]["gate"] = jnp.array([0.25, 1, 0.5])
    assert inspect_norms(layer, variables, x)[0].gate == pytest.approx((0.25, 1.75 / 3, 1))

    class Masked(nn.Module):
        @nn.compact
        def __call__(self, x, mask):
            return BatchNorm(use_running_average=True, ghost_batch_size=2)(x, mask=mask)

    mask = np.zeros((6, 1, 1, 3), bool)
    mask[:2], mask[:1, ..., 1] = True, False
    arguments = Masked().init(KEY, x, mask), (x, mask)
    assert inspect_norms(Masked(), *arguments)[0].values == 16
    assert inspect_norms(Masked(), arguments[0], (x, mask | True))[0].values == 2 * 16


class Layer(nn.Module):
    @nn.compact
    def __call__(self, x, _):
        return nn.LayerNorm()(nn.Dense(8)(x)), None


def test_layers_of_a_scan_are_one_row_and_must_be_let_out():
    def stack(**axes):
        return nn.scan(Layer, variable_axes={"params": 0, **axes}, split_rngs={"params": True}, length=3)()

    net, x = stack(), images()
    variables = net.init(KEY, x, None)
    with pytest.raises(UserError, match='`LayerNorm_0` .*; add "intermediates": 0 there'):
        inspect_norms(net, variables, (x, None))
    (row,) = inspect_norms(stack(intermediates=0), variables, (x, None))
    assert (row.path, row.channels, row.values) == ("LayerNorm_0", 3 * 8, 8)


def test_layers_of_nnx_and_one_that_is_called_twice():
    class Twice(nnx.Module):
        def __init__(self):
            rngs = nnx.Rngs(0)
            self.norm, self.others = nnx.LayerNorm(8, rngs=rngs), nnx.List([nnx.RMSNorm(8, rngs=rngs)])
            self.group, self.instance = nnx.GroupNorm(8, 2, rngs=rngs), nnx.InstanceNorm(8, rngs=rngs)

        def __call__(self, x):
            return self.instance(self.group(self.norm(self.others[0](self.norm(x[0, 0])[None, None] + x))))

    rows = inspect_norms(Twice(), images())
    assert sorted((row.path, row.values, row.shape) for row in rows) == [
        ("group", 64, (6, 4, 4, 8)),
        ("instance", 16, (6, 4, 4, 8)),
        ("norm", 8, (4, 8)),
        ("norm", 8, (6, 4, 4, 8)),
        ("others/0", 8, (6, 4, 4, 8)),
    ]
