"""`recompute_statistics` against all data at once in float64, and the models that it must refuse."""

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxnorm
from jaxnorm import BatchNorm, BatchRenorm, UserError, recompute_statistics

KEY = jax.random.key(0)


def test_mean_and_variance_are_those_of_all_values_whatever_the_batches(user, batches):
    expected = user.statistics(batches, [slice(None)] * 3)
    before = user.values()
    found = user.values(recompute_statistics(*user.given, iter(batches)))
    for name, (mean, var) in expected.items():
        np.testing.assert_allclose(found[name]["norm"].pop("mean"), mean, rtol=2e-5, atol=2e-5)
        np.testing.assert_allclose(found[name]["norm"].pop("var"), var, rtol=2e-5)
        kept = {key: value for key, value in before[name]["norm"].items() if key not in ("mean", "var")}
        chex.assert_trees_all_equal(found[name], {"dense": before[name]["dense"], "norm": kept})
    chex.assert_trees_all_equal(user.values(), before)  # the user's own model


def test_masked_values_do_not_count(user, batches):
    masks = [np.arange(len(x)) % 3 > 0 for x in batches]
    expected = user.statistics(batches, masks)
    found = user.values(
        recompute_statistics(*user.given, [(x, m[:, None]) for x, m in zip(batches, masks, strict=True)])
    )
    for name, (mean, var) in expected.items():
        np.testing.assert_allclose(found[name]["norm"]["mean"], mean, rtol=2e-5, atol=2e-5)
        np.testing.assert_allclose(found[name]["norm"]["var"], var, rtol=2e-5)


def test_channels_without_a_value_keep_their_statistics():
    class Masked(nn.Module):
        @nn.compact
        def __call__(self, x):
            return BatchNorm(use_running_average=False)(x, mask=jnp.array([True, False]))

    x = np.random.default_rng(1).normal(5, 2, (20, 2))
    found = recompute_statistics(Masked(), Masked().init(KEY, x), [x[:8], x[8:]])["batch_stats"]["BatchNorm_0"]
    np.testing.assert_allclose(found["mean"], [x[:, 0].mean(), 0], rtol=1e-6)
    np.testing.assert_allclose(found["var"], [x[:, 0].var(), 1], rtol=1e-6)


@pytest.mark.parametrize("offset", [0, 1e5])
def test_a_layer_that_is_called_twice_has_the_statistics_of_both_inputs_at_any_offset(offset):
    class Shared(nn.Module):
        @nn.compact
        def __call__(self, x, train):
            norm = BatchNorm(use_running_average=not train, axis=1)
            return norm(x) + norm(3 * x)

    x = (np.random.default_rng(2).normal(size=(6, 4, 3, 5)) + offset).astype(np.float32)
    found = recompute_statistics(Shared(), Shared().init(KEY, x, True), [x[:1], x[1:]])["batch_stats"]["BatchNorm_0"]
    both = np.concatenate([x, 3 * x]).astype(np.float64)
    np.testing.assert_allclose(found["mean"], both.mean((0, 2, 3)), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(found["var"], both.var((0, 2, 3)), rtol=2e-5)


class Masked(nn.Module):
    norm: nn.Module

    @nn.compact
    def __call__(self, x, mask=None):
        return self.norm(x, mask=mask)


class MaskedNnx(nnx.Module):
    def __init__(self, norm):
        self.norm = norm

    def __call__(self, x, mask=None):
        return self.norm(x, mask=mask)


OTHERS = {
    "BatchGroupNorm": {"group_size": 2},
    "SwitchableNorm": {},
    "EvoNormB0": {},
    "IterNorm": {"group_size": 2},
}


def running_of(name, values):
    """The exact running values of rows of values in float64."""
    mean, cov = values.mean(0), np.cov(values.T, bias=True)
    if name == "BatchGroupNorm":
        pairs = np.concatenate([values.reshape(-1, 2, 2)[..., 0], values.reshape(-1, 2, 2)[..., 1]])
        return {"mean": np.repeat(pairs.mean(0), 2), "var": np.repeat(pairs.var(0), 2)}
    if name == "IterNorm":
        return {"mean": mean, "cov": np.stack([cov[:2, :2], cov[2:, 2:]])}
    return {"mean": mean, "var": values.var(0)} if name == "SwitchableNorm" else {"var": values.var(0)}


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("interface", ["linen", "nnx"])
def test_other_layers_with_running_values(name, masked, interface):
    rng, mix = np.random.default_rng(0), np.triu(np.ones((4, 4)))
    batches = [(rng.normal(at, 1 + at, (2 + at, 3, 3, 4)) @ mix + 20).astype(np.float32) for at in range(3)]
    masks = [rng.uniform(size=(*x.shape[:3], 1)) < 0.6 if masked else np.ones((*x.shape[:3], 1), bool) for x in batches]
    rows = np.concatenate([x[mask[..., 0]] for x, mask in zip(batches, masks, strict=True)]).astype(np.float64)
    given = [*zip(batches, masks, strict=True)] if masked else batches
    if interface == "linen":
        model = Masked(getattr(jaxnorm, name)(use_running_average=False, **OTHERS[name]))
        found = recompute_statistics(model, model.init(KEY, batches[0]), given)["batch_stats"]["norm"]
    else:
        model = MaskedNnx(getattr(jaxnorm.nnx, name)(4, **OTHERS[name], rngs=nnx.Rngs(0)))
        norm = recompute_statistics(model, given).norm
        found = {name: value[...] for name, value in vars(norm).items() if isinstance(value, nnx.BatchStat)}
    expected = running_of(name, rows)
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        np.testing.assert_allclose(found[key], value, rtol=2e-5, atol=1e-5)


def test_iterative_norm_refuses_a_mask_that_differs_by_channel():
    model, x = Masked(jaxnorm.IterNorm(use_running_average=False)), np.ones((4, 3, 2), np.float32)
    with pytest.raises(UserError, match="the last axis of that of `norm` has length 2; give one of length 1"):
        recompute_statistics(model, model.init(KEY, x), [(x, x > 0)])


class Layer(nn.Module):
    @nn.compact
    def __call__(self, x, train):
        return 2 * BatchNorm(use_running_average=not train, momentum=0.5)(nn.Dense(3)(x)), None


class Stack(nn.Module):
    """Three layers of one definition, with stacked variables."""

    @nn.compact
    def __call__(self, x, train):
        settings = dict(variable_axes={"params": 0, "batch_stats": 0}, split_rngs={"params": True}, length=3)
        return nn.scan(Layer, in_axes=nn.broadcast, **settings)()(x, train)[0]


def test_layers_in_a_scan_have_their_own(batches):
    model = Stack()
    variables = model.init(KEY, batches[0], True)
    found = recompute_statistics(model, variables, batches[:1])
    y, updated = model.apply(variables, batches[0], True, mutable=["batch_stats"])
    halves = jax.tree.map(lambda new, old: 2 * new - old, updated["batch_stats"], variables["batch_stats"])
    chex.assert_trees_all_close(found["batch_stats"], halves, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(model.apply(found, batches[0], False), y, rtol=1e-3, atol=1e-3)


def test_arguments_reach_the_model_and_its_mode_can_be_given(batches):
    class Dropping(nn.Module):
        @nn.compact
        def __call__(self, x, is_training, rate):
            x = nn.Dropout(rate, deterministic=not is_training)(x)
            return BatchNorm(use_running_average=False)(x)

    x = batches[0] + 100
    variables = Dropping().init(KEY, x, False, 0.5)

    def variance(**call):
        return recompute_statistics(Dropping(), variables, [x], **call)["batch_stats"]["BatchNorm_0"]["var"]

    np.testing.assert_allclose(variance(rate=0.5, is_training=False), x.var(0), rtol=1e-4)
    assert (variance(rate=0.5, rngs={"dropout": KEY}) > 100 * x.var(0)).all()


class Renorm(BatchNorm):
    """Batch renormalization, more or less: the output in training depends on the running mean."""

    @nn.compact
    def __call__(self, x, use_running_average=None, *, mask=None):
        return super().__call__(x, use_running_average, mask=mask) + self.get_variable("batch_stats", "mean")


class Own(nn.Module):
    """A norm that keeps a mean square."""

    @nn.compact
    def __call__(self, x):
        square = self.variable("batch_stats", "square", jnp.ones, x.shape[-1:])
        square.value = 0.9 * square.value + 0.1 * (x**2).mean(0)
        return x / jnp.sqrt((x**2).mean(0))


REFUSED = [
    (nn.Sequential([Renorm(False), BatchNorm(False)]), r"depends on running values of `layers_0`; unfreeze"),
    (nn.Sequential([BatchNorm(False), BatchNorm(True), nn.BatchNorm(False)]), "running values of `layers_1`;"),
    (nn.Sequential([BatchNorm(False), Own()]), "but `layers_1` has some and is none of these; take"),
    (nn.Sequential([nn.LayerNorm()]), "needs a layer with running values, such as .*, but the model calls none"),
    (nn.Sequential([BatchRenorm(False), BatchNorm(False)]), "of `layers_0`; .* take BatchNorm in place of BatchRenorm"),
]


@pytest.mark.parametrize("model, message", REFUSED)
def test_a_model_whose_statistics_cannot_be_recomputed_is_refused_in_one_line(model, message, batches):
    variables = model.init(KEY, batches[0])
    with pytest.raises(UserError, match=message) as caught:
        recompute_statistics(model, variables, batches)
    assert "\n" not in str(caught.value)


def test_a_frozen_layer_of_nnx_is_refused(batches):
    class Frozen(nnx.Module):
        def __init__(self):
            self.norm = nnx.BatchNorm(3, rngs=nnx.Rngs(0))

        def __call__(self, x):
            return self.norm(x, use_running_average=True)

    with pytest.raises(UserError, match="depends on running values of `norm`"):
        recompute_statistics(Frozen(), batches)


def test_data_and_variables_must_be_there(batches):
    model = BatchNorm(use_running_average=False)
    variables = model.init(KEY, batches[0])
    with pytest.raises(UserError, match="at least one batch, but found none; give an iterable"):
        recompute_statistics(model, variables, [])
    with pytest.raises(UserError, match="followed by its variables and the data, .* BatchNorm is followed by 1 of"):
        recompute_statistics(model, batches)
    with pytest.raises(UserError, match="but SGD is followed by 2 of"):
        recompute_statistics(type("SGD", (), {})(), variables, batches)
