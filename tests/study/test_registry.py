"""NORMS, and the way to add to it."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from jaxnorm import ResNet, WeightStandardizedConv
from jaxnorm.errors import UserError
from jaxnorm.norms import BatchInstanceNorm, BatchNorm, GroupNorm, InstanceNorm, LayerNorm
from jaxnorm.study.config import DEFAULT_NORMS
from jaxnorm.study.param_groups import ParamGroup, project
from jaxnorm.study.registry import NORMS, Norm, ghost_batch_norm, make_norm, register_norm
from jaxnorm.study.training.optimizer import make_optimizer

BUILT_IN = (*DEFAULT_NORMS, "bin_frozen")


def build_identity(*, train, axis_name, dtype, name):
    del train, axis_name, dtype
    return nn.Dense(1, name=name)


def build_dense(*, train, axis_name, dtype, name):
    del train, axis_name, dtype
    return nn.Dense(2, name=name)


def test_the_built_in_norms_come_first_in_the_published_order():
    assert tuple(NORMS)[: len(BUILT_IN)] == BUILT_IN
    assert all(norm.id == id for id, norm in NORMS.items())
    assert [NORMS[id].label for id in BUILT_IN] == [
        "Flax batch norm",
        "No normalization",
        "Batch norm",
        "Instance norm",
        "Batch-instance norm",
        "Layer norm",
        "Group norm",
        "Batch-instance norm, frozen gate",
    ]


@pytest.mark.parametrize(
    ("id", "kind"),
    {
        "flax_bn": nn.BatchNorm,
        "bn": BatchNorm,
        "in": InstanceNorm,
        "bin": BatchInstanceNorm,
        "ln": LayerNorm,
        "gn": GroupNorm,
        "bin_frozen": BatchInstanceNorm,
    }.items(),
)
@pytest.mark.parametrize("train", [True, False])
def test_modules_are_built_as_published(id, kind, train):
    module = NORMS[id](train=train, axis_name="data", dtype=jnp.bfloat16, name="norm")
    assert type(module) is kind
    fields = {field.name: getattr(module, field.name) for field in dataclasses.fields(module)}
    assert (module.epsilon, module.dtype, module.name) == (1e-5, jnp.bfloat16, "norm")
    if "momentum" in fields:
        assert (module.momentum, module.use_running_average, module.axis_name) == (0.9, not train, "data")
    assert fields.get("train_gate", True) == (id != "bin_frozen")
    assert fields.get("group_size", 4) == 4
    if id == "ln":
        assert module.reduction_axes == (1, 2, 3)


def test_none_is_the_identity_without_parameters():
    x = jnp.ones((2, 4, 4, 8), jnp.bfloat16)
    y, variables = make_norm("none", train=True).init_with_output(jax.random.key(0), x)
    assert y is x
    assert variables == {}


def test_an_unknown_norm_names_the_nearest():
    with pytest.raises(UserError, match=r"'gnn' is not; did you mean 'gn'.*valid: flax_bn, none, bn") as error:
        make_norm("gnn", train=True)
    assert "\n" not in str(error.value)


def test_a_registered_norm_can_be_made(registry):
    register_norm("dense_1", build_identity, label="Dense")
    assert registry["dense_1"] == Norm("dense_1", "Dense", build_identity)
    assert make_norm("dense_1", train=False, name="a").name == "a"
    register_norm("dense_1", build_identity, label="Dense")  # a module imported twice
    register_norm("dense_2", build_identity)
    assert registry["dense_2"].label == "dense_2"


@pytest.mark.parametrize("id", ["", "GN", "my-norm", "a/b", "../a", "ä", "bn\n", 3])
def test_an_id_that_is_no_directory_name_is_refused(registry, id):
    with pytest.raises(UserError, match="lower-case letters, digits and underscores"):
        register_norm(id, build_identity)


def test_a_taken_id_and_a_build_that_cannot_be_called_are_refused(registry):
    with pytest.raises(UserError, match="must be new, but 'bn' is registered"):
        register_norm("bn", build_identity)
    with pytest.raises(UserError, match="must have a function that builds it, but has 'jaxnorm.norms'"):
        register_norm("mine", "jaxnorm.norms")
    with pytest.raises(UserError, match="must take the keywords"):
        register_norm("mine", lambda train: None)
    assert "mine" not in registry


def test_only_our_norms_with_batch_statistics_have_ghost_batches():
    assert ghost_batch_norm("bin_frozen", 4)(train=True).ghost_batch_size == 4
    assert ghost_batch_norm("bn", 4) is ghost_batch_norm("bn", 4)
    for norm in set(NORMS) - {"bn", "bin", "bin_frozen"}:
        with pytest.raises(UserError, match=f"but the norm is {norm}"):
            ghost_batch_norm(norm, 4)


def test_what_a_registration_may_say_beside_the_build(registry):
    groups = {"*/alpha": ParamGroup(learning_rate=2.0)}
    register_norm("all", build_identity, activation=build_dense, conv=WeightStandardizedConv, param_groups=groups)
    norm = registry["all"]
    assert (norm.activation, norm.conv, norm.param_groups) == (build_dense, WeightStandardizedConv, (*groups.items(),))
    for wrong, words in (
        (dict(activation="relu"), "a norm's activation must take the keywords"),
        (dict(conv="conv"), "a norm's conv must build a convolution, but that of 'mine' is 'conv'"),
        (dict(param_groups={"*": ParamGroup()}), "a parameter named gate has a group already"),
    ):
        with pytest.raises(UserError, match=words):
            register_norm("mine", build_identity, **wrong)
    assert "mine" not in registry


@pytest.mark.parametrize("id", [id for id in NORMS if id not in BUILT_IN])
def test_every_further_norm_trains_in_the_network(id):
    """A step changes every parameter; what is included is left out before the addition and in the shortcut."""
    norm = NORMS[id]
    network = ResNet(num_blocks=1, num_filters=4, norm=norm, conv=norm.conv)
    x = jax.random.normal(jax.random.key(1), (4, 8, 8, 3))
    tx = make_optimizer(0.1, 10.0, 1, 1, norm.param_groups)

    @jax.jit
    def step(variables):
        def loss(params):
            y, state = network.apply({**variables, "params": params}, x, train=True, mutable=["batch_stats"])
            return (y[:, 0] ** 2).mean() - y[:, 1].mean(), state

        gradients, state = jax.grad(loss, has_aux=True)(variables["params"])
        updates, _ = tx.update(gradients, tx.init(variables["params"]), variables["params"])
        return {"params": project(optax.apply_updates(variables["params"], updates), norm.param_groups), **state}

    before = jax.jit(functools.partial(network.init, train=False))(jax.random.key(0), x)
    before = {name: tree for name, tree in before.items() if name in ("params", "batch_stats")}
    after = step(before)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(after))
    assert jax.tree.structure(after["params"]) == jax.tree.structure(before["params"])
    if id in ("frn", "evo_b0", "evo_s0"):
        included = {"frn": "threshold"}.get(id, "slope")
        has = {name: included in norms for name, norms in after["params"]["stage2_block1"].items() if "norm" in name}
        assert has == {"norm1": True, "norm2": False, "norm_proj": False}
        assert included in after["params"]["stem_norm"]
    moved = [bool((a != b).any()) for a, b in zip(*map(jax.tree.leaves, (before, after)), strict=True)]
    assert np.mean(moved) > 0.6  # a bias before a norm, and a scale of zero's input, have no gradient
